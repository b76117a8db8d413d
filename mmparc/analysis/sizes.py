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
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmparc import engine
from mmparc.analysis import figures, report
from mmparc.analysis.figures import plt
from mmparc.analysis.flops import input_size
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


def run(args: argparse.Namespace) -> None:
    """Write sizes.csv and sizes.png to ``args.out``."""
    if min(args.sizes or [1]) < 1:
        raise UserError('--sizes takes positive numbers')
    steps = steps_of(args)
    table, picture = report.make_folder(args.out, ['sizes.csv', 'sizes.png'], args.force)
    comments = [
        report.command(),
        "size: the input's shorter side in pixels; factor: of the size of the config's own test",
        "resize: the rule for the kernels of ParC; config resize: the config's own",
    ]
    rows = []
    for step in report.track(steps):
        rows.append(measure(**step))
        report.write_csv(table, comments, rows)  # after each, so that a later failure loses nothing
    draw(rows, picture)
    print(table, picture, sep='\n')


def steps_of(args: argparse.Namespace) -> list[dict]:
    """The arguments of each :func:`measure`.

    Each model is built once, so that what does not fit is refused before anything is measured.
    """
    if len(args.pairs) % 2:
        raise UserError(
            f"'{args.pairs[-1]}' has no checkpoint: pass pairs of CONFIG and CKPT, or none"
        )
    steps = []
    for config, checkpoint in zip(args.pairs[::2], args.pairs[1::2]):
        cfg = engine.load_config(config, args.cfg_options)
        engine.check_data(cfg, 'test_dataloader')
        model = engine.build_trained(copy.deepcopy(cfg), checkpoint)
        own_rules = sorted({m.resize for m in _parc_layers(model)})
        own = own_size(cfg)
        common = dict(cfg=cfg, checkpoint=checkpoint, own=own)
        common['own_rules'] = ' and '.join(own_rules) or PLAIN
        common['metric'] = args.metric or METRICS[cfg.default_scope]
        steps += [
            dict(common, rule=rule, size=size)
            for rule in (RESIZES if own_rules else [PLAIN])
            for size in sorted(set(args.sizes or sizes_around(own)))
        ]
    return steps


def measure(
    cfg: Config, checkpoint: str, metric: str, own: int, own_rules: str, rule: str, size: int
) -> dict[str, object]:
    """A row of the table: the metric of a test at one size, with all kernels resized by a rule."""
    name = figures.config_name(cfg.filename)
    with tempfile.TemporaryDirectory() as folder:
        scaled = figures.for_measuring(at_size(cfg, size, own), folder)
        try:
            runner = engine.runner_for_test(scaled, checkpoint)
            for layer in _parc_layers(runner.model):
                layer.resize = rule
            with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
                metrics = runner.test()
        except UserError:
            raise
        except Exception as error:  # upstream's models may raise anything
            raise UserError(
                f'{name} at {size} pixels: {first_line(error)}: pass other --sizes'
            ) from error
    if metric not in metrics:
        known = ', '.join(metrics) or 'none'
        raise UserError(f"the test of {name} gives no '{metric}': pass --metric, one of {known}")
    return {
        'model': name,
        'checkpoint': checkpoint,
        'resize': rule,
        'config resize': own_rules,
        'size': size,
        'factor': f'{size / own:.4g}',
        'metric': metric,
        'value': f'{metrics[metric]:.6g}',
    }


def draw(rows: Sequence[dict], path: Path) -> None:
    """A panel for each metric, a colour for each model, a line for each rule."""
    metrics = list(dict.fromkeys(row['metric'] for row in rows))
    pairs = list(dict.fromkeys((row['model'], row['checkpoint']) for row in rows))
    size = 7.5 * len(metrics), 5.5
    figure, axes = plt.subplots(1, len(metrics), figsize=size, layout='constrained', squeeze=False)
    for panel, metric in zip(axes[0], metrics):
        shown = [row for row in rows if row['metric'] == metric]
        lines = {}
        for row in shown:
            lines.setdefault((row['model'], row['checkpoint'], row['resize']), []).append(row)
        for (*pair, rule), points in lines.items():
            number = pairs.index(tuple(pair))
            what = 'no ParC' if rule == PLAIN else rule
            what += " (the config's)" if rule == points[0]['config resize'] != PLAIN else ''
            panel.plot(
                [row['size'] for row in points],
                [float(row['value']) for row in points],
                STYLES[rule],
                color=f'C{number}',
                label=f'{figures.labels(pairs)[number]}: {what}',
            )
            own = points[0]['size'] / float(points[0]['factor'])
            panel.axvline(own, color='grey', linewidth=1, alpha=0.5, zorder=0)
        sizes = sorted({row['size'] for row in shown})
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
    """The size at which a config tests: what it says itself, else that of its first image.

    Raises:
        UserError: if it says none and the data set has no image.
    """
    with contextlib.suppress(UserError):
        return min(input_size(cfg)[0])
    dataset = datasets_of(cfg.test_dataloader)[0]
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
