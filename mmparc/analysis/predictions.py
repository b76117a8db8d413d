"""Predictions of two models of one task on the same images: what differs, and as pictures.

Detection: a box counts from a score on; boxes of the same class with an IoU of at least 0.5 are
one find, and each takes part in one such pair. Segmentation: the class of each pixel.
Classification: the class of highest score.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

IOU = 0.5
LEGIBLE = 320  # the least shorter side of pictures of boxes and labels, in pixels


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

    Of the boxes of both, those of at least ``score``, the share that the other has no find for.
    """
    if 'pred_sem_seg' in a:
        return (a.pred_sem_seg.data != b.pred_sem_seg.data).double().mean().item()
    if 'pred_instances' in a:
        ours, theirs = (boxes_above(sample, score) for sample in (a, b))
        total = len(ours) + len(theirs)
        return 1 - 2 * finds(ours, theirs) / total if total else 0.0
    return float(class_of(a)[0] != class_of(b)[0])


def boxes_above(sample: BaseDataElement, score: float) -> InstanceData:
    return sample.pred_instances[sample.pred_instances.scores >= score]


def finds(a: InstanceData, b: InstanceData) -> int:
    """The largest number of pairs of boxes of the same class and an IoU of at least 0.5."""
    from torchvision.ops import box_iou

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
        return {'boxes': len(own), 'right': finds(own, sample.gt_instances)}
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
