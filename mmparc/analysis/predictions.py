"""Draw what two models predict on the same test images, beside each other and the annotation.

What counts as a difference. Detection: boxes from a score on; two of the same class with an IoU of
at least 0.5 are a match, and each takes part in one match. Segmentation: the class of each pixel.
Classification: the class of highest score.
"""

import argparse
import contextlib
import io
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou

from mmparc import engine
from mmparc.analysis import figures, report
from mmparc.analysis.figures import plt
from mmparc.engine.config import datasets_of
from mmparc.errors import UserError

IOU = 0.5
ACROSS = 4  # images of a classifier beside each other
PANELS = ('A', 'B', 'annotation')


@dataclass(frozen=True)
class Compared:
    """An image of the test set and both predictions; ``differs`` is a share, 0 to 1."""

    a: BaseDataElement
    b: BaseDataElement
    differs: float


def run(args: argparse.Namespace) -> None:
    """Write predictions.csv and predictions.png to ``args.out``."""
    if min(args.num, args.every) < 1:
        raise UserError('--num and --every take positive numbers')
    pairs = [(args.config_a, args.checkpoint_a), (args.config_b, args.checkpoint_b)]
    names = ['predictions.csv', 'predictions.png']
    table, picture = report.make_folder(args.out, names, args.force)
    with tempfile.TemporaryDirectory() as folder:
        a, b = (runner_for(*pair, args, folder) for pair in pairs)
        images = compare(a, b, args)
    dataset = a.test_dataloader.dataset
    meta, count = dataset.metainfo, len(dataset)
    if not images:
        raise UserError(
            f'on none of the {count} images do the two differ so much: pass a lower share, or '
            'leave --only-differing out'
        )
    rows = [row_of(image, meta['classes'], args.score) for image in images]
    comments = [
        report.command(),
        *(f'{x}: {" ".join(pair)}' for x, pair in zip('AB', pairs)),
        'differs: of classes all or nothing, else the share of pixels, or of boxes of '
        f'{args.score} or more that the other lacks',
    ]
    report.write_csv(table, comments, rows)
    figure = draw(images, rows, meta, args.score)
    figure.suptitle('\n'.join(f'{x}: {name}' for x, name in zip('AB', figures.labels(pairs))))
    figures.save(figure, picture)
    if len(images) < args.num:
        print(f'{len(images)} of {args.num} images: the test set of {count} has no more')
    print(table, picture, sep='\n')


# The two tests


def runner_for(config: str, checkpoint: str, args: argparse.Namespace, folder: str) -> Runner:
    cfg = figures.for_measuring(engine.load_config(config, args.cfg_options), folder)
    engine.check_data(cfg, 'test_dataloader')
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        if args.every > 1:
            for dataset in datasets_of(cfg.test_dataloader):
                with DefaultScope.overwrite_default_scope(cfg.default_scope):
                    count = len(DATASETS.build(dataset))
                dataset.indices = list(range(0, count, args.every))
        runner = engine.runner_for_test(cfg, checkpoint)
        _ = runner.test_dataloader  # made when first asked for
    return runner


def compare(a: Runner, b: Runner, args: argparse.Namespace) -> list[Compared]:
    """As many images as asked for, in the order of the test set."""
    tasks = [runner.cfg.default_scope for runner in (a, b)]
    if len(set(tasks)) > 1:
        raise UserError(f'both configs must be of one task, got {tasks[0]} and {tasks[1]}')
    one, other = (runner.test_dataloader.dataset for runner in (a, b))
    if len(one) != len(other) or one.metainfo['classes'] != other.metainfo['classes']:
        raise UserError(
            'the two have other test sets: pass configs with the same images and classes'
        )
    found: list[Compared] = []
    for one, other in zip(in_order(a), in_order(b)):
        if one.img_path != other.img_path:
            raise UserError(
                f"the two have other test images: '{one.img_path}' and '{other.img_path}'"
            )
        if not any(key.startswith('gt_') for key in one.keys()):
            raise UserError(
                f"'{args.config_a}' loads no annotations in its test: add LoadAnnotations to "
                'test_dataloader.dataset.pipeline'
            )
        differs = difference(one, other, args.score)
        if args.only_differing is None or differs > args.only_differing:
            found.append(Compared(one, other, differs))
        if len(found) == args.num:
            break
    return found


def in_order(runner: Runner) -> Iterator[BaseDataElement]:
    """The data samples of a test, predictions and annotations, in the order of the data set."""
    loader = runner.test_dataloader
    runner.model.eval()
    for batch in loader:
        with torch.no_grad(), DefaultScope.overwrite_default_scope(runner.cfg.default_scope):
            samples = runner.model.test_step(batch)
        yield from (sample.cpu() for sample in samples)


def difference(a: BaseDataElement, b: BaseDataElement, score: float) -> float:
    """How much two predictions differ: the share of pixels or boxes, or whether classes do, 0 to 1.

    Of the boxes of both, those of at least ``score``, the share that the other has no match for.
    """
    if 'pred_sem_seg' in a:
        return (a.pred_sem_seg.data != b.pred_sem_seg.data).double().mean().item()
    if 'pred_instances' in a:
        ours, theirs = (boxes_above(sample, score) for sample in (a, b))
        total = len(ours) + len(theirs)
        return 1 - 2 * matches(ours, theirs) / total if total else 0.0
    return float(a.pred_score.argmax() != b.pred_score.argmax())


def boxes_above(sample: BaseDataElement, score: float) -> InstanceData:
    return sample.pred_instances[sample.pred_instances.scores >= score]


def matches(a: InstanceData, b: InstanceData) -> int:
    """The largest number of pairs of boxes of the same class and an IoU of at least 0.5."""
    same = a.labels[:, None] == b.labels
    match = same & (box_iou(corners(a), corners(b)) >= IOU)
    rows, columns = linear_sum_assignment(match, maximize=True)
    return int(match[rows, columns].sum())


def corners(found: InstanceData) -> Tensor:
    """(N, 4) of boxes, which mmdet may have in a class of its own."""
    return getattr(found.bboxes, 'tensor', found.bboxes)


# What is written


def numbers_of(sample: BaseDataElement, classes: list[str], score: float) -> dict[str, object]:
    """A prediction in numbers: class and score, boxes, or right pixels."""
    if 'pred_sem_seg' in sample:
        truth = sample.gt_sem_seg.data
        counted = truth < len(classes)  # the rest is to be ignored
        right = (sample.pred_sem_seg.data == truth)[counted].double().mean().item()
        return {'% of pixels right': f'{100 * right:.4g}'}
    if 'pred_instances' in sample:
        own = boxes_above(sample, score)
        return {'boxes': len(own), 'right': matches(own, sample.gt_instances)}
    label = int(sample.pred_score.argmax())
    return {'class': classes[label], 'score': f'{sample.pred_score[label].item():.4f}'}


def truth_of(sample: BaseDataElement, classes: list[str]) -> dict[str, object]:
    """An annotation in numbers."""
    if 'gt_sem_seg' in sample:
        return {'classes': int((sample.gt_sem_seg.data.unique() < len(classes)).sum())}
    if 'gt_instances' in sample:
        return {'boxes': len(sample.gt_instances)}
    return {'class': ' or '.join(classes[int(i)] for i in sample.gt_label)}


def row_of(image: Compared, classes: list[str], score: float) -> dict[str, object]:
    parts = {
        'annotation': truth_of(image.a, classes),
        'A': numbers_of(image.a, classes, score),
        'B': numbers_of(image.b, classes, score),
    }
    row = {f'{which}: {key}': value for which, own in parts.items() for key, value in own.items()}
    return {'image': Path(image.a.img_path).name, **row, 'differs %': f'{100 * image.differs:.4g}'}


def caption(row: dict[str, object], which: str) -> str:
    """What a row has of A, of B or of the annotation, in words."""
    own = {k.partition(': ')[2]: v for k, v in row.items() if k.startswith(f'{which}: ')}
    if 'class' in own:
        return f'{which}: {" ".join(map(str, own.values()))}'
    return f'{which}: {", ".join(f"{value} {key}" for key, value in own.items())}'


def draw(images: Sequence[Compared], rows: Sequence[dict], meta: dict, score: float) -> plt.Figure:
    """Each image with the classes as text, or as three panels: A, B and the annotation.

    ``meta``: the data set's classes and, of a segmentation, palette.
    """
    maps = 'pred_score' not in images[0].a
    across = 1 if maps else min(ACROSS, len(images))
    down, shown = math.ceil(len(images) / across), PANELS if maps else PANELS[-1:]
    figure, axes = plt.subplots(
        *(down, across * len(shown)),
        figsize=(5 * len(shown) if maps else 3.2 * across, (5 if maps else 4.2) * down),
        layout='constrained',
        squeeze=False,
    )
    for panel in axes.flat:
        panel.axis('off')
    for panels, image, row in zip(axes.reshape(-1, len(shown)), images, rows):
        pixels = mmcv.imread(image.a.img_path, channel_order='rgb')  # the file's own
        for panel, which in zip(panels, shown):
            panel.imshow(pixels)
            if maps:
                draw_on(panel, image.b if which == 'B' else image.a, which, meta, score)
            lines = [row['image'], caption(row, which)]
            if which == 'annotation':
                lines += [f'A and B differ in {row["differs %"]} %'] if maps else []
                lines += [] if maps else [caption(row, 'A'), caption(row, 'B')]
            panel.set_title('\n'.join(lines), fontsize='medium')
    return figure


def draw_on(panel: plt.Axes, sample: BaseDataElement, which: str, meta: dict, score: float) -> None:
    """Draw the classes of pixels, or boxes with their masks, over an image."""
    truth = which == 'annotation'
    if 'pred_sem_seg' in sample:
        labels = (sample.gt_sem_seg if truth else sample.pred_sem_seg).data[0].numpy()
        known = labels < len(meta['classes'])
        colours = np.array(meta['palette'])[np.where(known, labels, 0)] / 255
        panel.imshow(np.dstack([colours, 0.6 * known]), interpolation='nearest')
        return
    found = sample.gt_instances if truth else boxes_above(sample, score)
    scores = [''] * len(found) if truth else [f' {value:.2f}' for value in found.scores]
    for (x0, y0, x1, y1), label, value in zip(corners(found).tolist(), found.labels, scores):
        colour = f'C{int(label)}'
        panel.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=colour))
        panel.text(
            x0, y0, f'{meta["classes"][label]}{value}', color=colour, va='bottom', clip_on=True
        )
    masks = found.get('masks', [])  # mmdet's class has those of an annotation
    for mask, label in zip(getattr(masks, 'to_ndarray', lambda: masks)(), found.labels):
        panel.contourf(np.asarray(mask, float), [0.5, 2], colors=[f'C{int(label)}'], alpha=0.4)
