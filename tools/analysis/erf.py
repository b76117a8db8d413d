#!/usr/bin/env python
"""Draw effective receptive fields, plain beside ParC, and the share of the area that they take.

Of twins by name, with random weights; or of configs of the three tasks, each with a checkpoint or
untrained. mmparc/analysis/erf.py says what is measured, docs/benchmarks/README.md how to read it.
"""

import argparse
import shlex
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import matplotlib

    matplotlib.use('Agg')
    import mmcv
    import numpy as np
    import torch
    from matplotlib import pyplot as plt
    from matplotlib.colors import LogNorm
    from matplotlib.image import AxesImage
    from mmengine.config import ConfigDict
    from mmengine.logging import MMLogger
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, DefaultScope
    from torch import Tensor, nn
    from torch.nn.functional import adaptive_avg_pool2d

    from mmparc import engine
    from mmparc.analysis import figures, report
    from mmparc.analysis.erf import Field, prepare_untrained, receptive_field
    from mmparc.engine.config import are_rgb, image_settings
    from mmparc.engine.errors import first_line
    from mmparc.models import ParCConv
    from mmparc.swap import backbone_names
    from mmparc.swap.fragments import IMAGES, load_fragment, twin_names
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None

PERCENT = (20, 30, 50, 99)  # RepLKNet's
SUFFIXES = ('.jpg', '.jpeg', '.png')
# The overview: pairs beside each other, and cells along the longer side of each picture.
ACROSS = 3
CELLS = 56
# Of the pictures, all of them, so that they compare: a contribution over the mean one.
SCALE = dict(norm=LogNorm(1e-2, 1e2), cmap='magma', interpolation='nearest')
AS_INITIALISED = 'as the models initialise them'
PREPARED = "scales of almost nothing are 1, batch norms have the images' statistics"
MEANING = 'contribution / mean'


@dataclass(frozen=True)
class Source:
    """A backbone to build, and how its images are normalised; the checkpoint is 'none' or a file.

    ``statistics``: mean and std of the channels, and whether images are RGB rather than BGR.
    """

    name: str
    settings: ConfigDict
    statistics: tuple[Sequence[float], Sequence[float], bool]
    scope: str = 'mmpretrain'
    checkpoint: str = 'none'


@dataclass(frozen=True)
class Result:
    """What was measured of a source; the variant is 'plain' or 'parc'."""

    source: Source
    variant: str
    field: Field


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=textwrap.fill(f'names: {", ".join(backbone_names())}', 100),
    )
    parser.add_argument(
        'names', nargs='*', metavar='NAME', help='backbones, each with its twin; default: all'
    )
    parser.add_argument(
        '--config',
        nargs=2,
        action='append',
        metavar=('CONFIG', 'CKPT'),
        help="instead of names, and repeatable: the backbone of a config's model with a "
        "checkpoint's weights, or with random ones for 'none'. Two in a row share a picture",
    )
    parser.add_argument(
        '--shape', type=int, nargs=2, metavar=('H', 'W'), default=[224, 224], help='(224 224)'
    )
    parser.add_argument('--inputs', type=int, default=8, help='the number of images (8)')
    parser.add_argument(
        '--images',
        type=Path,
        metavar='DIR',
        help='of the images (jpg, png) in this folder and below, resized; without it noise of the '
        "channels' mean and deviation in ImageNet",
    )
    parser.add_argument('--seed', type=int, default=0, help='of noise and random weights (0)')
    parser.add_argument(
        '--as-initialised',
        action='store_true',
        help='leave random weights as they are: scales that begin at almost nothing, and batch '
        'norms without statistics',
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/erf'), help='a folder')
    parser.add_argument(
        '--overview-only', action='store_true', help='erf.png alone, no picture for each pair'
    )
    parser.add_argument('--force', action='store_true', help='overwrite what is there')
    return parser.parse_args()


# What is measured


def groups_of(args: argparse.Namespace) -> dict[str, list[Source]]:
    """{name of the picture: what is in it, from left to right}"""
    if args.config:
        if args.names:
            raise engine.UserError('pass names or --config, not both')
        sources = [config_source(*pair) for pair in args.config]
        twos = [sources[i : i + 2] for i in range(0, len(sources), 2)]
        return {f'{i}_{two[-1].name}': two for i, two in enumerate(twos, 1)}
    for name in args.names:
        load_fragment(name)  # says what is close to a name that is not there
    pairs = [pair for pair in twin_names() if {*pair} & {*(args.names or pair)}]
    return {parc: [fragment_source(plain), fragment_source(parc)] for parc, plain in pairs}


def fragment_source(name: str) -> Source:
    fragment = load_fragment(name)
    settings = fragment.for_maps.copy()
    settings.out_indices = fragment.out_indices[-1:]
    images = fragment.images
    return Source(name, settings, (images['mean'], images['std'], images['rgb']))


def config_source(config: str, checkpoint: str) -> Source:
    cfg = engine.load_config(config)
    if not isinstance(cfg.model.get('backbone'), dict):
        raise engine.UserError(f"the model of '{config}' has no backbone (model.backbone)")
    engine.check_model_types(cfg)
    engine.drop_pretrained(cfg)
    engine.check_checkpoint(checkpoint, 'to look at')
    images = image_settings(cfg)
    statistics = images.get('mean') or [0.0] * 3, images.get('std') or [1.0] * 3, are_rgb(images)
    name = figures.config_name(config)
    return Source(name, cfg.model.backbone, statistics, cfg.default_scope, checkpoint)


def read_images(args: argparse.Namespace) -> list[np.ndarray]:
    """(H, W, 3) each, float32, BGR from 0 to 255, or noise about as large."""
    height, width = args.shape
    if args.images is None:
        values = np.random.default_rng(args.seed).standard_normal((args.inputs, height, width, 3))
        noise = values * IMAGES['std'] + IMAGES['mean']
        return list(noise[..., ::-1].astype(np.float32))
    if not args.images.is_dir():
        raise engine.UserError(f"there is no folder '{args.images}': pass one of images")
    files = sorted(path for path in args.images.rglob('*') if path.suffix.lower() in SUFFIXES)
    if not files:
        raise engine.UserError(f"'{args.images}' holds no image ({', '.join(SUFFIXES)})")
    # evenly from all, since those of a class stand together
    count = min(args.inputs, len(files))
    files = [files[i * len(files) // count] for i in range(count)]
    read = [mmcv.imread(path) for path in files]
    for path, image in zip(files, read):
        if image is None:
            raise engine.UserError(f"'{path}' is no image: remove it")
    return [mmcv.imresize(image, (width, height)).astype(np.float32) for image in read]


def measure(source: Source, images: Sequence[np.ndarray], args: argparse.Namespace) -> Result:
    normalised = np.stack([mmcv.imnormalize(image, *map_to(source)) for image in images])
    inputs = torch.from_numpy(normalised).permute(0, 3, 1, 2).contiguous()
    try:
        backbone = build(source, inputs, args)
        field = receptive_field(backbone, inputs)
    except engine.UserError:
        raise
    except Exception as error:  # upstream's backbones may raise anything
        shape = ' x '.join(map(str, inputs.shape))
        more = ', or more --inputs' * ('more than 1 value' in str(error))  # a batch norm's
        raise engine.UserError(
            f'{source.name} on images of {shape}: {first_line(error)}: pass another --shape{more}'
        ) from error
    is_parc = any(isinstance(module, ParCConv) for module in backbone.modules())
    return Result(source, 'parc' if is_parc else 'plain', field)


def map_to(source: Source) -> tuple[np.ndarray, np.ndarray, bool]:
    """The arguments of mmcv.imnormalize."""
    mean, std, to_rgb = source.statistics
    return np.array(mean, np.float64), np.array(std, np.float64), to_rgb


def build(source: Source, inputs: Tensor, args: argparse.Namespace) -> nn.Module:
    torch.manual_seed(args.seed)
    with DefaultScope.overwrite_default_scope(source.scope):
        backbone = revert_sync_batchnorm(MODELS.build(source.settings))
        if source.checkpoint == 'none':
            backbone.init_weights()
    # A classifier's last map instead of the vector that it makes of it.
    if getattr(backbone, 'gap_before_final_norm', False):
        backbone.gap_before_final_norm = False
    if getattr(backbone, 'out_type', None) in ('cls_token', 'avg_featmap', 'raw'):
        backbone.out_type = 'featmap'
    if source.checkpoint != 'none':
        engine.check_whole_model(backbone, source.checkpoint, 'backbone.')
    elif not args.as_initialised:
        prepare_untrained(backbone, inputs)
    return backbone


# What is written


def rows_of(results: Sequence[Result]) -> list[dict[str, object]]:
    rows = []
    for result in results:
        height, width = result.field.contribution.shape
        for percent in PERCENT:
            row = dict(model=result.source.name, variant=result.variant)
            row |= dict(checkpoint=result.source.checkpoint, height=height, width=width)
            row['percent'] = percent
            row['pixels %'] = f'{result.field.pixels(percent) * 100:.4g}'
            row['rectangle %'] = f'{result.field.rectangle(percent) * 100:.4g}'
            rows.append(row)
    return rows


def table(rows: Sequence[dict]) -> str:
    """A line for each backbone, from its rows, which follow each other."""
    header = ['backbone', 'variant', 'checkpoint']
    header += [f'{kind}, {p} %' for kind in ('pixels', 'rectangle') for p in PERCENT]
    lines = []
    for first in range(0, len(rows), len(PERCENT)):
        own = rows[first : first + len(PERCENT)]
        what = [own[0][key] for key in ('model', 'variant', 'checkpoint')]
        lines.append(
            [*what, *(row[f'{kind} %'] for kind in ('pixels', 'rectangle') for row in own)]
        )
    return report.markdown(header, lines, 3) + '\n'


def draw(axes: plt.Axes, result: Result, cells: int, title: list[str]) -> AxesImage:
    """Draw means over cells, so many along the longer side and never more than pixels."""
    values = result.field.contribution
    step = max(1.0, max(values.shape) / cells)
    shape = [max(1, round(n / step)) for n in values.shape]
    means = adaptive_avg_pool2d(values[None] / values.mean(), shape)[0]
    height, width = values.shape
    image = axes.imshow(means.clamp(min=1e-9), extent=(0, width, height, 0), **SCALE)
    axes.set_title('\n'.join(title), fontsize='small')
    axes.set(xticks=[], yticks=[])
    return image


def aspect_ratio(result: Result) -> float:
    """The height in widths."""
    height, width = result.field.contribution.shape
    return height / width


def shares(measure: Callable[[int], float], percents: Sequence[int]) -> str:
    percents_of_area = ', '.join(f'{measure(percent) * 100:.3g}' for percent in percents)
    return f'{", ".join(map(str, percents))} % in {percents_of_area} %'


def draw_pair(group: Sequence[Result], path: Path) -> None:
    size = 5 * len(group) + 1, 5 * aspect_ratio(group[0]) + 1.2
    figure, axes = plt.subplots(1, len(group), figsize=size, layout='constrained', squeeze=False)
    for panel, result in zip(axes[0], group):
        checkpoint = result.source.checkpoint
        weights = 'random weights' if checkpoint == 'none' else checkpoint
        title = [textwrap.fill(result.source.name, 60), textwrap.fill(weights, 60)]
        title.append(f'{shares(result.field.pixels, PERCENT)} of the pixels')
        title.append(f'{shares(result.field.rectangle, PERCENT)}, in a rectangle')
        image = draw(panel, result, max(result.field.contribution.shape), title)
    figure.colorbar(image, ax=axes, label=MEANING, extend='both', shrink=0.8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_all(groups: Sequence[Sequence[Result]], path: Path) -> None:
    across = min(ACROSS, len(groups))
    down = -(-len(groups) // across)
    size = 4.2 * across + 1, (2 * aspect_ratio(groups[0][0]) + 0.6) * down + 0.6
    figure, axes = plt.subplots(down, 2 * across, figsize=size, layout='constrained', squeeze=False)
    panels = axes.reshape(-1, 2)
    for panel in panels.flat:
        panel.axis('off')
    for pair, group in zip(panels, groups):
        for panel, result in zip(pair, group):
            panel.axis('on')
            checkpoint = Path(result.source.checkpoint).name
            name = f'{result.source.name}{"" if checkpoint == "none" else f", {checkpoint}"}'
            title = [textwrap.fill(name, 28), shares(result.field.pixels, (50, 99))]
            image = draw(panel, result, CELLS, title)
    figure.suptitle('Effective receptive fields')
    figure.colorbar(image, ax=axes, label=MEANING, extend='both', shrink=0.6, aspect=20)
    figure.savefig(path, dpi=70)
    plt.close(figure)


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    if args.inputs < 1 or min(args.shape) < 1:
        raise engine.UserError('--inputs and --shape take positive numbers')
    warnings.simplefilter('ignore')  # upstream's constructors
    MMLogger.get_current_instance().setLevel('ERROR')
    engine.allow_mmengine_checkpoints()
    images = read_images(args)
    groups = groups_of(args)
    pictures = {} if args.overview_only else {name: f'{name}.png' for name in groups}
    names = ['erf.csv', 'erf.md', 'erf.png', *pictures.values()]
    figures.make_folder(args.out, names, args.force)

    steps = [(name, source) for name, sources in groups.items() for source in sources]
    results: dict[str, list[Result]] = {name: [] for name in groups}
    for name, source in report.track(steps, lambda step: step[1].name):
        results[name].append(measure(source, images, args))
    for name, file in pictures.items():
        draw_pair(results[name], args.out / file)
    draw_all(list(results.values()), args.out / 'erf.png')

    height, width = args.shape
    what = f'of {args.images}' if args.images else 'of noise'
    comments = [
        f'command: {shlex.join(["tools/analysis/erf.py", *sys.argv[1:]])}',
        f'{len(images)} images {what}, {height} x {width}; seed {args.seed}',
        'random weights (none): ' + (AS_INITIALISED if args.as_initialised else PREPARED),
        'shares of the area in percent: the smallest set of pixels, and the smallest rectangle '
        'about the middle, that hold so many percent of the contribution',
    ]
    rows = rows_of([result for group in results.values() for result in group])
    made = table(rows)
    print(made)
    report.write_csv(args.out / 'erf.csv', comments, rows)
    head = '\n'.join(f'- {comment}' for comment in comments)
    (args.out / 'erf.md').write_text(f'# Effective receptive fields\n\n{head}\n\n{made}')
    print(*(args.out / name for name in names), sep='\n')


if __name__ == '__main__':
    main()
