#!/usr/bin/env python
"""Draw what two checkpoints predict on the same test images, beside each other and the annotation.

mmparc/analysis/predictions.py says what is counted as a difference.
"""

import argparse
import contextlib
import io
import shlex
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from mmengine.config import Config
    from mmengine.registry import DATASETS, DefaultScope
    from mmengine.runner import Runner
    from mmengine.structures import BaseDataElement

    from mmparc import engine
    from mmparc.analysis import figures, predictions, report
    from mmparc.engine.config import datasets_of
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None

ACROSS = 4  # images of a classifier beside each other
RIGHT, WRONG = 'tab:green', 'tab:red'


@dataclass(frozen=True)
class Found:
    """An image of the test set and what both make of it; ``differs`` is a share, 0 to 1."""

    a: BaseDataElement
    b: BaseDataElement
    differs: float

    @property
    def name(self) -> str:
        return Path(self.a.img_path).name


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for which in 'ab':
        parser.add_argument(f'config_{which}', metavar=f'CONFIG_{which.upper()}')
        parser.add_argument(
            f'checkpoint_{which}',
            metavar=f'CKPT_{which.upper()}',
            help="a file, or 'none' for the untrained model",
        )
    parser.add_argument('--num', type=int, default=8, help='of images, the first ones (8)')
    parser.add_argument(
        '--every',
        type=int,
        default=1,
        metavar='N',
        help='of the test set each N-th image alone (1)',
    )
    parser.add_argument(
        '--only-differing',
        nargs='?',
        type=float,
        const=0.0,
        metavar='SHARE',
        help='only images where the two predict another class, or where more than this share of '
        'pixels or boxes differ (0)',
    )
    parser.add_argument('--score', type=float, default=0.3, help='of boxes, at least (0.3)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/predictions'), help='a folder')
    parser.add_argument('--force', action='store_true', help='overwrite what is there')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=engine.DictAction,
        metavar='KEY=VALUE',
        help='override entries of both configs; data_root=DIR moves the data set',
    )
    return parser.parse_args()


# What is compared


def runners(args: argparse.Namespace, folder: str) -> list[Runner]:
    made = []
    for config, checkpoint in pairs_of(args):
        cfg = figures.for_measuring(engine.load_config(config, args.cfg_options), folder)
        engine.check_data(cfg, 'test_dataloader')
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            take_every(args.every, cfg)
            made.append(engine.runner_for_test(cfg, checkpoint))
            _ = made[-1].test_dataloader  # made when first asked for
    scopes = [runner.cfg.default_scope for runner in made]
    if scopes[0] != scopes[1]:
        raise engine.UserError(f'one task at a time: the configs are of {" and ".join(scopes)}')
    sets = [runner.test_dataloader.dataset for runner in made]
    if len(sets[0]) != len(sets[1]) or classes_of(made[0]) != classes_of(made[1]):
        raise engine.UserError(
            'the two have other test sets: pass configs with the same images and classes'
        )
    return made


def take_every(step: int, cfg: Config) -> None:
    """Leave each ``step``-th image of the test set."""
    if step == 1:
        return
    for dataset in datasets_of(cfg.test_dataloader):
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            dataset.indices = list(range(0, len(DATASETS.build(dataset)), step))


def pairs_of(args: argparse.Namespace) -> list[figures.Pair]:
    return [(args.config_a, args.checkpoint_a), (args.config_b, args.checkpoint_b)]


def classes_of(runner: Runner) -> list[str]:
    return list(runner.test_dataloader.dataset.metainfo['classes'])


def find_images(a: Runner, b: Runner, args: argparse.Namespace) -> list[Found]:
    """As many as asked for, in the order of the test set."""
    found: list[Found] = []
    count = len(a.test_dataloader.dataset)
    if args.only_differing is None:
        count = min(count, args.num)
    samples = zip(predictions.in_order(a), predictions.in_order(b))
    for _ in report.track(range(count), lambda number: f'image {number + 1}'):
        one, other = next(samples)
        if one.img_path != other.img_path:
            raise engine.UserError(
                f"the two have other test images: '{one.img_path}' and '{other.img_path}'"
            )
        if not any(key.startswith('gt_') for key in one.keys()):
            raise engine.UserError(
                f"'{args.config_a}' loads no annotations in its test: add LoadAnnotations to "
                'test_dataloader.dataset.pipeline'
            )
        differs = predictions.difference(one, other, args.score)
        if args.only_differing is None or differs > args.only_differing:
            found.append(Found(one, other, differs))
        if len(found) == args.num and args.only_differing is not None:
            break
    return found


def rows_of(images: Sequence[Found], classes: list[str], score: float) -> list[dict]:
    rows = []
    for image in images:
        row = {'image': image.name}
        truth = predictions.truth_of(image.a, classes)
        row |= {f'annotation: {key}': value for key, value in truth.items()}
        for which, sample in (('A', image.a), ('B', image.b)):
            numbers = predictions.summary(sample, classes, score)
            row |= {f'{which}: {key}': value for key, value in numbers.items()}
        rows.append({**row, 'differs %': f'{100 * image.differs:.4g}'})
    return rows


# What is drawn


def said(row: dict[str, object], which: str) -> str:
    """What a row of the table has of A, of B or of the annotation."""
    own = {k.partition(': ')[2]: v for k, v in row.items() if k.startswith(f'{which}: ')}
    if 'class' in own:
        return ' '.join(map(str, own.values()))
    return ', '.join(f'{value} {key}' for key, value in own.items())


def draw_classes(images: Sequence[Found], rows: Sequence[dict], title: str, path: Path) -> None:
    """Each image with its class above, and below what A and B take it for, green where right."""
    across = min(ACROSS, len(images))
    down = -(-len(images) // across)
    size = 3 * across, 4 * down + 1
    figure, axes = plt.subplots(down, across, figsize=size, layout='constrained', squeeze=False)
    for panel in axes.flat[len(images) :]:
        panel.axis('off')
    for panel, image, row in zip(axes.flat, images, rows):
        panel.imshow(predictions.image_of(image.a))
        panel.set(xticks=[], yticks=[])
        panel.set_title(f'{image.name}\ntrue: {said(row, "annotation")}', fontsize='medium')
        for line, (which, sample) in enumerate((('A', image.a), ('B', image.b))):
            right = predictions.class_of(sample)[0] in sample.gt_label
            panel.text(
                *(0.5, -0.03 - 0.08 * line),
                f'{which}: {said(row, which)}',
                color=RIGHT if right else WRONG,
                transform=panel.transAxes,
                ha='center',
                va='top',
            )
    save(figure, title, path)


def draw_maps(
    images: Sequence[Found],
    rows: Sequence[dict],
    title: str,
    path: Path,
    visualizer: object,
    score: float,
) -> None:
    """A row for each image: A, B and the annotation."""
    shapes = [predictions.image_of(image.a).shape for image in images]
    heights = [height / width for height, width, _ in shapes]
    size = 15, 5 * sum(heights) + 0.7 * len(images) + 0.8
    figure, axes = plt.subplots(
        *(len(images), 3), figsize=size, layout='constrained', squeeze=False, height_ratios=heights
    )
    for panels, image, row in zip(axes, images, rows):
        pixels = predictions.image_of(image.a)
        shown = (('A', image.a), ('B', image.b), ('annotation', image.a))
        for panel, (which, sample) in zip(panels, shown):
            truth = which == 'annotation'
            panel.imshow(predictions.picture(visualizer, pixels, sample, truth=truth, score=score))
            panel.set(xticks=[], yticks=[])
            text = f'{which}: {said(row, which)}'
            if truth:
                text += f'; A and B differ in {row["differs %"]} %'
            text = f'{image.name}\n{text}'
            panel.set_title(text, fontsize='medium')
    save(figure, title, path)


def save(figure: plt.Figure, title: str, path: Path) -> None:
    figure.suptitle(title)
    figure.savefig(path, dpi=90)
    plt.close(figure)


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    if min(args.num, args.every) < 1:
        raise engine.UserError('--num and --every take positive numbers')
    warnings.simplefilter('ignore')  # upstream's constructors
    names = ['predictions.csv', 'predictions.png']
    figures.make_folder(args.out, names, args.force)
    with tempfile.TemporaryDirectory() as folder:
        a, b = runners(args, folder)
        images = find_images(a, b, args)
    count = len(a.test_dataloader.dataset)
    if not images:
        raise engine.UserError(
            f'on none of the {count} images do the two differ so much: pass a lower share, or '
            'leave --only-differing out'
        )
    classes = classes_of(a)
    rows = rows_of(images, classes, args.score)
    comments = [
        f'command: {shlex.join(["tools/analysis/compare_predictions.py", *sys.argv[1:]])}',
        *(f'{x}: {" ".join(pair)}' for x, pair in zip('AB', pairs_of(args))),
        'differs: of classes all or nothing, else the share of pixels, or of boxes of '
        f'{args.score} or more that the other lacks',
    ]
    report.write_csv(args.out / names[0], comments, rows)
    title = '\n'.join(f'{x}: {name}' for x, name in zip('AB', figures.labels(pairs_of(args))))
    if a.cfg.default_scope == 'mmpretrain':
        draw_classes(images, rows, title, args.out / names[1])
    else:
        draw_maps(images, rows, title, args.out / names[1], a.visualizer, args.score)
    if len(images) < args.num:
        print(f'{len(images)} of {args.num} images: the test set of {count} has no more')
    print(*(args.out / name for name in names), sep='\n')


if __name__ == '__main__':
    main()
