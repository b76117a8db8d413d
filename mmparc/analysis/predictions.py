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
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou

from mmparc import engine
from mmparc.analysis import figures, report
from mmparc.analysis.figures import plt
from mmparc.engine.config import datasets_of
from mmparc.errors import UserError

IOU = 0.5
LEGIBLE = 320  # the least shorter side of pictures of boxes and labels, in pixels
ACROSS = 4  # images of a classifier beside each other
RIGHT, WRONG = 'tab:green', 'tab:red'


@dataclass(frozen=True)
class Compared:
    """An image of the test set and both predictions; ``differs`` is a share, 0 to 1."""

    a: BaseDataElement
    b: BaseDataElement
    differs: float

    @property
    def name(self) -> str:
        return Path(self.a.img_path).name


def run(args: argparse.Namespace) -> None:
    """Write predictions.csv and predictions.png to ``args.out``."""
    if min(args.num, args.every) < 1:
        raise UserError('--num and --every take positive numbers')
    pairs = [(args.config_a, args.checkpoint_a), (args.config_b, args.checkpoint_b)]
    table, picture_file = args.out / 'predictions.csv', args.out / 'predictions.png'
    report.make_folder(args.out, [table.name, picture_file.name], args.force)
    with tempfile.TemporaryDirectory() as folder:
        a, b = runners(args, pairs, folder)
        images = compare(a, b, args)
    count = len(a.test_dataloader.dataset)
    if not images:
        raise UserError(
            f'on none of the {count} images do the two differ so much: pass a lower share, or '
            'leave --only-differing out'
        )
    rows = rows_of(images, classes_of(a), args.score)
    comments = [
        report.command(),
        *(f'{x}: {" ".join(pair)}' for x, pair in zip('AB', pairs)),
        'differs: of classes all or nothing, else the share of pixels, or of boxes of '
        f'{args.score} or more that the other lacks',
    ]
    report.write_csv(table, comments, rows)
    title = '\n'.join(f'{x}: {name}' for x, name in zip('AB', figures.labels(pairs)))
    if a.cfg.default_scope == 'mmpretrain':
        figure = draw_classes(images, rows)
    else:
        figure = draw_maps(images, rows, a.visualizer, args.score)
    figure.suptitle(title)
    figures.save(figure, picture_file)
    if len(images) < args.num:
        print(f'{len(images)} of {args.num} images: the test set of {count} has no more')
    print(table, picture_file, sep='\n')


# The two tests


def runners(
    args: argparse.Namespace, pairs: Sequence[figures.Pair], folder: str
) -> tuple[Runner, Runner]:
    made = []
    for config, checkpoint in pairs:
        cfg = figures.for_measuring(engine.load_config(config, args.cfg_options), folder)
        engine.check_data(cfg, 'test_dataloader')
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            take_every(args.every, cfg)
            made.append(engine.runner_for_test(cfg, checkpoint))
            _ = made[-1].test_dataloader  # made when first asked for
    a, b = made
    if a.cfg.default_scope != b.cfg.default_scope:
        raise UserError(
            f'both configs must be of one task, got {a.cfg.default_scope} and {b.cfg.default_scope}'
        )
    lengths = {len(runner.test_dataloader.dataset) for runner in made}
    if len(lengths) > 1 or classes_of(a) != classes_of(b):
        raise UserError(
            'the two have other test sets: pass configs with the same images and classes'
        )
    return a, b


def take_every(step: int, cfg: Config) -> None:
    """Leave each ``step``-th image of the test set."""
    if step == 1:
        return
    for dataset in datasets_of(cfg.test_dataloader):
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            dataset.indices = list(range(0, len(DATASETS.build(dataset)), step))


def classes_of(runner: Runner) -> list[str]:
    return list(runner.test_dataloader.dataset.metainfo['classes'])


def compare(a: Runner, b: Runner, args: argparse.Namespace) -> list[Compared]:
    """As many images as asked for, in the order of the test set."""
    found: list[Compared] = []
    count = len(a.test_dataloader.dataset)
    if args.only_differing is None:
        count = min(count, args.num)
    samples = zip(in_order(a), in_order(b))
    for _ in report.track(range(count), lambda number: f'image {number + 1}'):
        one, other = next(samples)
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
    return float(class_of(a)[0] != class_of(b)[0])


def boxes_above(sample: BaseDataElement, score: float) -> InstanceData:
    return sample.pred_instances[sample.pred_instances.scores >= score]


def matches(a: InstanceData, b: InstanceData) -> int:
    """The largest number of pairs of boxes of the same class and an IoU of at least 0.5."""
    same = a.labels[:, None] == b.labels
    match = same & (box_iou(_tensor(a.bboxes), _tensor(b.bboxes)) >= IOU)
    rows, columns = linear_sum_assignment(match, maximize=True)
    return int(match[rows, columns].sum())


def class_of(sample: BaseDataElement) -> tuple[int, float]:
    """A classifier's class, and its score."""
    label = int(sample.pred_score.argmax())
    return label, sample.pred_score[label].item()


def summary(sample: BaseDataElement, classes: list[str], score: float) -> dict[str, Any]:
    """What a prediction is in numbers, by their names: class and score, boxes, or right pixels."""
    if 'pred_sem_seg' in sample:
        truth = sample.gt_sem_seg.data
        counted = truth < len(classes)  # the rest is to be ignored
        right = (sample.pred_sem_seg.data == truth)[counted].double().mean().item()
        return {'% of pixels right': f'{100 * right:.4g}'}
    if 'pred_instances' in sample:
        own = boxes_above(sample, score)
        return {'boxes': len(own), 'right': matches(own, sample.gt_instances)}
    label, value = class_of(sample)
    return {'class': classes[label], 'score': f'{value:.4f}'}


def truth_of(sample: BaseDataElement, classes: list[str]) -> dict[str, Any]:
    """What an annotation is in numbers."""
    if 'gt_sem_seg' in sample:
        found = sample.gt_sem_seg.data.unique()
        return {'classes': int((found < len(classes)).sum())}
    if 'gt_instances' in sample:
        return {'boxes': len(sample.gt_instances)}
    return {'class': ' or '.join(classes[int(i)] for i in sample.gt_label)}


def image_of(sample: BaseDataElement) -> np.ndarray:
    """(H, W, 3), RGB, 0 to 255: the file, not what the pipeline made of it."""
    return mmcv.imread(sample.img_path, channel_order='rgb')


def picture(
    visualizer: Any, image: np.ndarray, sample: BaseDataElement, *, truth: bool, score: float
) -> np.ndarray:
    """An image with boxes or classes of pixels as upstream's visualizer draws them.

    Small images are enlarged before, so that names of classes can be read.

    Args:
        visualizer: mmdet's or mmseg's, with the data set's ``dataset_meta``.
        image: (H, W, 3), RGB.
        sample: of that image.
        truth: whether to draw the annotation and not the prediction.
        score: that a predicted box has at least.

    Returns:
        (H, W, 3), RGB.
    """
    scale = -(-LEGIBLE // min(image.shape[:2]))
    image, sample = enlarged(image, sample, scale)
    above = {} if 'pred_sem_seg' in sample else dict(pred_score_thr=score)
    with tempfile.TemporaryDirectory() as folder:  # the way out that both visualizers have
        file = Path(folder, 'picture.png')
        visualizer.add_datasample(
            'picture',
            image,
            sample,
            draw_gt=truth,
            draw_pred=not truth,
            out_file=str(file),
            **above,
        )
        return mmcv.imread(file, channel_order='rgb')


def enlarged(
    image: np.ndarray, sample: BaseDataElement, scale: int
) -> tuple[np.ndarray, BaseDataElement]:
    """An image and what is drawn on it, ``scale`` times as large."""
    if scale == 1:
        return image, sample
    height, width = (scale * n for n in image.shape[:2])
    new = sample.new()
    for name, value in sample.items():
        if isinstance(value, PixelData):
            setattr(new, name, PixelData(data=_repeated(value.data, scale)))
        elif isinstance(value, InstanceData):
            fields = dict(value.items())
            fields['bboxes'] = _tensor(value.bboxes) * scale
            if 'masks' in fields:
                masks = fields['masks']
                drawn = isinstance(masks, Tensor)
                fields['masks'] = (
                    _repeated(masks, scale) if drawn else masks.resize((height, width))
                )
            setattr(new, name, InstanceData(**fields))
    return mmcv.imresize(image, (width, height)), new


def _repeated(maps: Tensor, scale: int) -> Tensor:
    return maps.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def _tensor(boxes: Any) -> Tensor:
    """(N, 4) of boxes, which mmdet may have in a class of its own."""
    return getattr(boxes, 'tensor', boxes)


# What is written


def rows_of(images: Sequence[Compared], classes: list[str], score: float) -> list[dict]:
    rows = []
    for image in images:
        row = {'image': image.name}
        numbers = {
            'annotation': truth_of(image.a, classes),
            'A': summary(image.a, classes, score),
            'B': summary(image.b, classes, score),
        }
        for which, own in numbers.items():
            row |= {f'{which}: {key}': value for key, value in own.items()}
        rows.append({**row, 'differs %': f'{100 * image.differs:.4g}'})
    return rows


def caption(row: dict[str, object], which: str) -> str:
    """What a row has of A, of B or of the annotation, in words."""
    own = {k.partition(': ')[2]: v for k, v in row.items() if k.startswith(f'{which}: ')}
    if 'class' in own:
        return ' '.join(map(str, own.values()))
    return ', '.join(f'{value} {key}' for key, value in own.items())


def draw_classes(images: Sequence[Compared], rows: Sequence[dict]) -> plt.Figure:
    """Each image with its class above, and below the classes of A and B, green where right."""
    across = min(ACROSS, len(images))
    down = math.ceil(len(images) / across)
    size = 3 * across, 4 * down + 1
    figure, axes = plt.subplots(down, across, figsize=size, layout='constrained', squeeze=False)
    for panel in axes.flat[len(images) :]:
        panel.axis('off')
    for panel, image, row in zip(axes.flat, images, rows):
        panel.imshow(image_of(image.a))
        panel.set(xticks=[], yticks=[])
        panel.set_title(f'{image.name}\ntrue: {caption(row, "annotation")}', fontsize='medium')
        for line, (which, sample) in enumerate((('A', image.a), ('B', image.b))):
            right = class_of(sample)[0] in sample.gt_label
            panel.text(
                *(0.5, -0.03 - 0.08 * line),
                f'{which}: {caption(row, which)}',
                color=RIGHT if right else WRONG,
                transform=panel.transAxes,
                ha='center',
                va='top',
            )
    return figure


def draw_maps(
    images: Sequence[Compared], rows: Sequence[dict], visualizer: object, score: float
) -> plt.Figure:
    """A row for each image: A, B and the annotation."""
    shapes = [image_of(image.a).shape for image in images]
    heights = [height / width for height, width, _ in shapes]
    size = 15, 5 * sum(heights) + 0.7 * len(images) + 0.8
    figure, axes = plt.subplots(
        *(len(images), 3), figsize=size, layout='constrained', squeeze=False, height_ratios=heights
    )
    for panels, image, row in zip(axes, images, rows):
        pixels = image_of(image.a)
        shown = (('A', image.a), ('B', image.b), ('annotation', image.a))
        for panel, (which, sample) in zip(panels, shown):
            truth = which == 'annotation'
            panel.imshow(picture(visualizer, pixels, sample, truth=truth, score=score))
            panel.set(xticks=[], yticks=[])
            text = f'{image.name}\n{which}: {caption(row, which)}'
            if truth:
                text += f'; A and B differ in {row["differs %"]} %'
            panel.set_title(text, fontsize='medium')
    return figure
