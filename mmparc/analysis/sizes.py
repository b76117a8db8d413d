"""Draw a checkpoint's accuracy against the size of its input, by the rule that resizes kernels.

The size is the shorter side, in pixels, of what the network sees of a test image: the crop of a
classifier, what a detector's or segmentor's images are resized to. At another size all steps of the
test pipeline that have a size are scaled by the same factor, and windows of a sliding test with
them; where none has, images are resized after loading. Annotations keep their size, and predictions
are compared with them by the config's own evaluator.
"""

import argparse
import contextlib
import copy
import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmparc import engine
from mmparc.analysis import figures, report
from mmparc.analysis.figures import plt
from mmparc.engine.config import datasets_of
from mmparc.engine.errors import first_line
from mmparc.errors import UserError
from mmparc.models import ParCConv
from mmparc.ops.resize import RESIZES

# A task's main metric, as mmengine's logs call it.
METRICS = {'mmpretrain': 'accuracy/top1', 'mmdet': 'coco/bbox_mAP', 'mmseg': 'mIoU'}
# Steps of test pipelines that set a size: mmcv's and the three packages'.
SIZED = {'Resize': 'scale', 'ResizeEdge': 'scale', 'CenterCrop': 'crop_size', 'Pad': 'size'}
MULTIPLE = 32  # the stride of most backbones
FACTORS = [2 ** (i / 3) for i in range(-3, 4)]  # from half to twice
PLAIN = '-'  # the rule of networks without ParC
STYLES = dict(zip((*RESIZES, PLAIN), ('o-', 's--', '^:')))


@dataclass(frozen=True)
class Source:
    """A trained model to measure.

    Attributes:
        rules: by which its kernels are resized, in turn.
        own_rules: those that it was trained with, in one word.
        own_size: at which its config tests.
    """

    label: str
    cfg: Config
    checkpoint: str
    metric: str
    rules: Sequence[str]
    own_rules: str
    sizes: Sequence[int]
    own_size: int


def run(args: argparse.Namespace) -> None:
    """Write sizes.csv and sizes.png to ``args.out``."""
    if min(args.sizes or [1]) < 1:
        raise UserError('--sizes takes positive numbers')
    sources = read_sources(args)
    table, picture = args.out / 'sizes.csv', args.out / 'sizes.png'
    report.make_folder(args.out, [table.name, picture.name], args.force)
    comments = [
        report.command(),
        "size: the input's shorter side in pixels; factor: of the size of the config's own test",
        "resize: the rule for the kernels of ParC; config resize: the config's own",
    ]
    steps = [(s, rule, size) for s in sources for rule in s.rules for size in s.sizes]
    measured = []
    for step in report.track(steps, lambda step: f'{step[0].label}, {step[1]}, {step[2]} pixels'):
        measured.append((step[0], measure(*step)))
        # after each, so that a later failure loses nothing
        report.write_csv(table, comments, [row for _, row in measured])
    draw(measured, picture)
    print(table, picture, sep='\n')


def read_sources(args: argparse.Namespace) -> list[Source]:
    """Build each model once, so that what does not fit is refused before anything is measured."""
    if len(args.pairs) % 2:
        raise UserError(
            f"'{args.pairs[-1]}' has no checkpoint: pass pairs of CONFIG and CKPT, or none"
        )
    pairs = list(zip(args.pairs[::2], args.pairs[1::2]))
    sources = []
    for label, (config, checkpoint) in zip(figures.labels(pairs), pairs):
        cfg = engine.load_config(config, args.cfg_options)
        engine.check_data(cfg, 'test_dataloader')
        model = engine.build_trained(copy.deepcopy(cfg), checkpoint)
        own_rules = sorted({m.resize for m in _parc_layers(model)})
        size = own_size(cfg)
        sources.append(
            Source(
                label=label,
                cfg=cfg,
                checkpoint=checkpoint,
                metric=args.metric or METRICS[cfg.default_scope],
                rules=RESIZES if own_rules else [PLAIN],
                own_rules=' and '.join(own_rules) or PLAIN,
                sizes=sorted(set(args.sizes or sizes_around(size))),
                own_size=size,
            )
        )
    return sources


def measure(source: Source, rule: str, size: int) -> dict[str, object]:
    """A row of the table: the metric of a test at one size, with all kernels resized by a rule."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = figures.for_measuring(at_size(source.cfg, size, source.own_size), folder)
        try:
            runner = engine.runner_for_test(cfg, source.checkpoint)
            for layer in _parc_layers(runner.model):
                layer.resize = rule
            with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
                metrics = runner.test()
        except UserError:
            raise
        except Exception as error:  # upstream's models may raise anything
            raise UserError(
                f'{source.label} at {size} pixels: {first_line(error)}: pass other --sizes'
            ) from error
    if source.metric not in metrics:
        known = ', '.join(metrics) or 'none'
        raise UserError(
            f"the test of {source.label} gives no '{source.metric}': pass --metric, one of {known}"
        )
    return {
        'model': figures.config_name(source.cfg.filename),
        'checkpoint': source.checkpoint,
        'resize': rule,
        'config resize': source.own_rules,
        'size': size,
        'factor': f'{size / source.own_size:.4g}',
        'metric': source.metric,
        'value': f'{metrics[source.metric]:.6g}',
    }


def draw(measured: Sequence[tuple[Source, dict]], path: Path) -> None:
    """A panel for each metric, a colour for each model, a line for each rule."""
    sources = list({source.label: source for source, _ in measured}.values())
    metrics = list(dict.fromkeys(source.metric for source in sources))
    size = 7.5 * len(metrics), 5.5
    figure, axes = plt.subplots(1, len(metrics), figsize=size, layout='constrained', squeeze=False)
    for panel, metric in zip(axes[0], metrics):
        shown = [source for source in sources if source.metric == metric]
        for number, source in enumerate(shown):
            panel.axvline(source.own_size, color='grey', linewidth=1, alpha=0.5, zorder=0)
            for rule in source.rules:
                rows = [row for s, row in measured if s is source and row['resize'] == rule]
                what = 'no ParC' if rule == PLAIN else rule
                what += " (the config's)" if rule == source.own_rules != PLAIN else ''
                panel.plot(
                    [row['size'] for row in rows],
                    [float(row['value']) for row in rows],
                    STYLES[rule],
                    color=f'C{number}',
                    label=f'{source.label}: {what}',
                )
        sizes = sorted({size for source in shown for size in source.sizes})
        panel.set_xscale('log', base=2)
        panel.set_xticks(sizes, map(str, sizes))
        panel.minorticks_off()
        xlabel = "shorter side of the input, pixels (line: the config's own)"
        panel.set(title=metric, xlabel=xlabel, ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(fontsize='small', loc='upper center', bbox_to_anchor=(0.5, -0.13))
    figure.suptitle('Accuracy against input size')
    figures.save(figure, path, dpi=110)


def _parc_layers(model: nn.Module) -> list[ParCConv]:
    return [module for module in model.modules() if isinstance(module, ParCConv)]


# Sizes of a test


def own_size(cfg: Config) -> int:
    """The size at which a config tests: its crop, else its resizing, else that of its first image.

    Raises:
        UserError: if no step of the pipeline has a size and the data set no image.
    """
    dataset = datasets_of(cfg.test_dataloader)[0]
    found = {_kind(step): step[key] for step, key in _sized_steps(dataset.pipeline)}
    for kind in ('CenterCrop', 'Resize', 'ResizeEdge'):
        if kind in found:
            size = found[kind]
            return size if isinstance(size, int) else min(size)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        images = DATASETS.build(dataset)
        if not len(images):
            raise UserError(f"the test set in '{dataset.data_root}' has no image")
        return min(images[0]['inputs'].shape[-2:])


def sizes_around(size: int) -> list[int]:
    """A handful from half to twice a size: itself, and multiples of 32 about as far apart."""
    sizes = {int(size * factor / MULTIPLE + 0.5) * MULTIPLE for factor in FACTORS}
    return sorted({size} | {n for n in sizes if size / 2 <= n <= size * 2})


def at_size(cfg: Config, size: int, own: int) -> Config:
    """A copy of a config that tests at ``size`` where it tested at ``own``."""
    cfg = copy.deepcopy(cfg)
    if size == own:
        return cfg
    factor = size / own
    for dataset in datasets_of(cfg.test_dataloader):
        steps = _sized_steps(dataset.pipeline)
        for step, key in steps:
            step[key] = _scaled(step[key], factor)
        if not steps:
            loading = [i for i, s in enumerate(dataset.pipeline) if _kind(s).startswith('LoadIm')]
            after = loading[-1] + 1 if loading else 0
            dataset.pipeline.insert(after, dict(type='Resize', scale_factor=factor))
    windows = cfg.model.get('test_cfg') or {}
    if windows.get('mode') == 'slide':
        for key in ('crop_size', 'stride'):
            windows[key] = _scaled(windows[key], factor)
    return cfg


def _kind(step: dict) -> str:
    return str(step['type']).rpartition('.')[2]


def _sized_steps(pipeline: Iterable[dict]) -> list[tuple[dict, str]]:
    """The steps that set a size, each with its key."""
    found = [(step, SIZED[_kind(step)]) for step in pipeline if _kind(step) in SIZED]
    return [(step, key) for step, key in found if step.get(key)]


def _scaled(size: Any, factor: float) -> Any:
    if isinstance(size, int):
        return int(size * factor + 0.5)
    return tuple(_scaled(side, factor) for side in size)
