"""Checks of a data set's files, where upstream would train on wrong labels without a message.

Upstream skips a box of a category or image that the file does not have, resizes an image and its
mask to one size whatever their own sizes were, and leaves a label that is too high to the loss.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mmengine.registry import DATASETS
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from .config import datasets_of
from .errors import SampleError, UserError


def innermost(dataset: Dataset) -> Iterator[Dataset]:
    """The data sets in a data set, wrappers unwrapped."""
    inner = getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None)
    if isinstance(inner, Dataset):
        inner = [inner]
    if isinstance(inner, list | tuple):
        for each in inner:
            yield from innermost(each)
    else:
        yield dataset


def describe(cfg: dict) -> str:
    """Which data set a config means, by its type and its files."""
    name = cfg.get('type')
    files = os.path.join(cfg.get('data_root') or '', cfg.get('ann_file') or '')
    return f"the data set {getattr(name, '__name__', name)} of '{files}'"


# Before a data set is built


def check_coco_files(loader: dict) -> None:
    """Raise UserError if an annotation file of a data loader's config has wrong annotations."""
    for cfg in datasets_of(loader):
        kind = cfg.get('type')
        if isinstance(kind, str):
            with DATASETS.switch_scope_and_registry(cfg.get('_scope_')) as registry:
                kind = registry.get(kind)
        path = os.path.join(cfg.get('data_root') or '', cfg.get('ann_file') or '')
        if not _reads_coco(kind) or '://' in path:
            continue
        try:
            with open(path, encoding='utf-8') as file:
                content = json.load(file)
        except ValueError as error:
            raise UserError(f"'{path}' is not JSON: {error}") from error
        if problem := coco_problem(content):
            raise UserError(f"'{path}': {problem}: fix the annotations, or remove them")


def _reads_coco(kind: Any) -> bool:
    """Whether a class reads COCO's instances, neither LVIS nor panoptic segments."""
    if not hasattr(kind, 'COCOAPI'):
        return False
    from mmdet.datasets import CocoDataset  # other tasks work without mmdet

    return kind.COCOAPI is CocoDataset.COCOAPI


def coco_problem(content: Any) -> str | None:
    """What is wrong with the content of a COCO annotation file and would pass mmdet unnoticed.

    Boxes without height or width are in COCO itself, and boxes that end outside their image in
    other sets: mmdet leaves out the former and clips the latter.
    """
    for key in ('images', 'categories'):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            return f'no list of {key}, so it is not a COCO file'
    images = {image['id']: image for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    for box in content.get('annotations', ()):
        name = f'annotation {box.get("id")}'
        image = images.get(box.get('image_id'))
        if image is None:
            return f'{name} has image_id {box.get("image_id")}, which no image has'
        if box.get('category_id') not in categories:
            return f'{name} has category_id {box.get("category_id")}, which no category has'
        corners = box.get('bbox')
        if corners is None:
            continue
        try:
            x, y, width, height = corners
            proper = all(map(math.isfinite, corners)) and width >= 0 and height >= 0
        except (TypeError, ValueError):
            proper = False
        if not proper:
            return f'{name} has bbox {corners}, expected [x, y, width, height] with sizes >= 0'
        within = x < image['width'] and y < image['height'] and x + width >= 0 and y + height >= 0
        if not within:
            return (
                f"{name} has bbox {corners}, outside its image '{image.get('file_name')}' of "
                f'{image["width"]} x {image["height"]}'
            )
    return None


# When it is built


def check_not_empty(loader: dict) -> None:
    """Raise UserError if a data set of a data loader's config has no samples.

    mmengine fails to serialize an empty list, and says only that.
    """
    for cfg in datasets_of(loader):
        try:
            empty = len(DATASETS.build(dict(cfg, serialize_data=False))) == 0
        except Exception:  # another fault, which is being raised
            continue
        if empty:
            raise UserError(
                f'{describe(cfg)} is empty: add its files, check what filter_cfg and '
                'metainfo.classes leave of it, or set another --cfg-options data_root=DIR'
            )


def check_categories(dataset: Dataset) -> None:
    """Raise UserError if COCO's file lacks classes of the data set: mmdet would shift labels."""
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    found = getattr(dataset, 'cat_ids', None)
    if found is not None and len(found) < len(classes):
        raise UserError(
            f"'{dataset.ann_file}' has {len(found)} of the data set's {len(classes)} classes: set "
            "metainfo.classes to the names in it, and num_classes of the model's heads to match"
        )


def check_labels(dataset: Dataset, model: nn.Module) -> None:
    """Raise UserError if a classification set has a label that the model's head has no output for.

    Detectors and segmentors are checked by the loss and the other checks here.
    """
    model = getattr(model, 'module', model)
    classes = getattr(getattr(model, 'head', None), 'num_classes', None)
    for each in innermost(dataset):
        if not classes or not hasattr(each, 'get_gt_labels'):
            continue
        labels = np.asarray(each.get_gt_labels())
        wrong = np.flatnonzero((labels < 0) | (labels >= classes)) if labels.ndim == 1 else ()
        if len(wrong):
            path = each.get_data_info(int(wrong[0])).get('img_path')
            raise UserError(
                f"'{path}' has the label {labels[wrong[0]]}, but the model has {classes} classes, "
                f'0 to {classes - 1} ({len(wrong)} such images): fix the annotations, or set '
                'model.head.num_classes'
            )


# When a sample is loaded


class MaskCheck:
    """Compares segmentation masks with their images' sizes and the data set's classes.

    Only of mmseg's data sets, whose masks hold classes alone.
    """

    def __init__(self, dataset: Dataset) -> None:
        first = next(innermost(dataset))
        self.active = hasattr(first, 'reduce_zero_label')
        if self.active:
            self.classes = len(first.metainfo.get('classes') or ())
            self.ignored = getattr(first, 'ignore_index', 255)

    def check(self, sample: Any) -> None:
        """Raise SampleError if the mask of a sample that was loaded does not fit."""
        data = sample.get('data_samples') if self.active and isinstance(sample, dict) else None
        path = data.get('seg_map_path') if data is not None and 'gt_sem_seg' in data else None
        if not path:
            return
        if problem := size_problem(data.img_path, path, data.get('ori_shape')):
            raise SampleError(problem)
        found = data.gt_sem_seg.data
        found = found[found != self.ignored]
        if self.classes and found.numel() and (highest := int(found.max())) >= self.classes:
            raise SampleError(
                f"the mask '{path}' has the class {highest}, but the data set has {self.classes} "
                'classes, counted from 0: fix the mask, or set metainfo.classes and num_classes'
            )


def size_problem(image: str, mask: str, size: Sequence[int] | None = None) -> str | None:
    """What is wrong if a local mask has another size than its image.

    Args:
        image: the path.
        mask: the path; only its header is read.
        size: (H, W) of the image as it was loaded, if known.
    """
    if '://' in mask:
        return None
    if size is None:
        with Image.open(image) as opened:
            size = opened.size[::-1]
    with Image.open(mask) as opened:
        width, height = opened.size
    rows, columns = size[:2]
    if (height, width) == (rows, columns):
        return None
    return (
        f"the mask '{mask}' is {height} x {width} but its image '{image}' is {rows} x {columns}: "
        'make their sizes equal'
    )
