"""Data that cannot be trained on, named by their files: when they are read, not later or never.

Upstream skips a box of a category or image that the file does not have, resizes an image and its
mask to one size whatever theirs were, and leaves a label that is too high to the loss.
"""

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from .errors import SampleError, UserError, first_line
from .refusals import no_samples


class CheckedRunner(Runner):
    """mmengine's Runner, whose data loaders name what they cannot load."""

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        for dataset in innermost(loader.dataset):
            if hasattr(dataset, '__len__') and len(dataset) == 0:
                raise UserError(no_samples(dataset))
            check_categories(dataset)
            watch_loading(dataset)
        return loader

    def train(self) -> nn.Module:
        for loader in (self.train_dataloader, self._val_dataloader and self.val_dataloader):
            if loader:
                check_labels(loader.dataset, self.model)
        return super().train()


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


# While a sample is loaded


def watch_loading(dataset: Dataset) -> None:
    """Have the steps of a data set that read files say which one they cannot read.

    They stay the objects that they are, as does the data set, wherever it is loaded.
    """
    # mmseg's are the classes of masks; mmdet's may have masks of other things beside them
    of_masks = hasattr(dataset, 'reduce_zero_label')
    classes = len(dataset.metainfo.get('classes') or ()) if of_masks else 0
    ignored = getattr(dataset, 'ignore_index', 255)
    for step in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        if type(step).__name__.startswith('Load') and hasattr(step, 'transform'):
            step.transform = functools.partial(_load, step.transform, classes, ignored)


def _load(transform: Callable[[dict], Any], classes: int, ignored: int, sample: dict) -> Any:
    """Read what a step reads of a sample.

    Args:
        transform: the step.
        classes: of the data set's masks; 0 if they are not known.
        ignored: the value of a mask that is no class.
        sample: as the step before has left it; it is changed.

    Raises:
        SampleError: if it cannot be read, or a mask does not fit its image or the classes.
    """
    image, mask = sample.get('img_path'), sample.get('seg_map_path')
    try:
        loaded = transform(sample)
    except Exception as error:  # whatever decoders make of a broken file
        file = mask if mask and 'img' in sample else image
        empty = Path(file or '').is_file() and not Path(file).stat().st_size
        cause = 'it is empty' if empty else getattr(error, 'strerror', None) or first_line(error)
        raise SampleError(
            f"'{file}' or its annotation cannot be loaded ({cause}): mend it, or "
            'take it out of the data set'
        ) from error
    found = sample.get('gt_seg_map')
    if mask and isinstance(found, np.ndarray) and sample.get('ori_shape'):
        height, width = sample['ori_shape'][:2]
        if found.shape[:2] != (height, width):
            raise SampleError(
                f"the mask '{mask}' is {found.shape[0]} x {found.shape[1]} but its image '{image}' "
                f'{height} x {width}: make them of one size'
            )
        highest = int(found.max(initial=0, where=found != ignored))
        if classes and highest >= classes:
            raise SampleError(
                f"the mask '{mask}' has the class {highest}, but the data set's {classes} classes "
                f'end at {classes - 1}: mend it, or set metainfo.classes and num_classes'
            )
    return loaded


# When a data set is read


def check_labels(dataset: Dataset, model: nn.Module) -> None:
    """Raise UserError if a classification set has a label that the model's head has no output for.

    Detectors and segmentors have their classes compared in :func:`watch_loading`,
    :func:`check_coco_files` and by the loss.
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
                f"'{path}' has the label {labels[wrong[0]]}, but the model {classes} classes, 0 to "
                f'{classes - 1} ({len(wrong)} such images): mend the annotations, or set '
                'model.head.num_classes'
            )


def check_coco_files(cfg: Config) -> None:
    """Have mmdet's CocoDataset read its annotation files with care, for the whole process."""
    if cfg.default_scope != 'mmdet':
        return
    from mmdet.datasets import CocoDataset  # it takes seconds, and other tasks do not need it

    if getattr(CocoDataset.COCOAPI, 'checks', False):
        return

    class CheckedCOCO(CocoDataset.COCOAPI):
        checks = True

        def __init__(self, annotation_file: str | None = None) -> None:
            self.file = annotation_file
            super().__init__(annotation_file)

        def createIndex(self) -> None:
            if problem := coco_problem(self.dataset):
                raise UserError(
                    f"'{self.file}': {problem}: mend the annotations, or take them out of the file"
                )
            super().createIndex()

    CocoDataset.COCOAPI = CheckedCOCO


def coco_problem(content: dict) -> str | None:
    """What is wrong with the content of a COCO annotation file, of which mmdet would say nothing.

    Boxes of no height or width are in COCO itself, and boxes that end outside their image in other
    sets: mmdet leaves out the former and clips the latter.
    """
    for key in ('images', 'categories'):
        if not isinstance(content.get(key), list):
            return f"it has no list of {key}, so it is no file of COCO's kind"
    images = {image['id']: image for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    for box in content.get('annotations', ()):
        name = f'annotation {box.get("id")}'
        image = images.get(box.get('image_id'))
        if image is None:
            return f'{name} is of image_id {box.get("image_id")}, which no image has'
        if box.get('category_id') not in categories:
            return f'{name} is of category_id {box.get("category_id")}, which no category has'
        corners = box.get('bbox')
        if corners is None:
            continue
        try:
            x, y, width, height = corners
            proper = all(map(math.isfinite, corners)) and width >= 0 and height >= 0
        except (TypeError, ValueError):
            proper = False
        if not proper:
            return f'{name} has the bbox {corners}, not [x, y, width, height] of numbers from 0 on'
        within = x < image['width'] and y < image['height'] and x + width >= 0 and y + height >= 0
        if not within:
            return (
                f"{name} has the bbox {corners}, outside of its image '{image['file_name']}' of "
                f'{image["width"]} x {image["height"]}'
            )
    return None


def check_categories(dataset: Dataset) -> None:
    """Raise UserError if COCO's file lacks classes of the data set: mmdet would count past them."""
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    found = getattr(dataset, 'cat_ids', None)
    if found is not None and len(found) < len(classes):
        raise UserError(
            f"'{dataset.ann_file}' has {len(found)} of the data set's {len(classes)} classes, so "
            'that labels would be counted wrongly: set metainfo.classes to names in it, and '
            "num_classes of the model's heads to their number"
        )
