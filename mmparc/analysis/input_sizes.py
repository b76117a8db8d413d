"""Metrics of a trained model against the size of its input.

The size is the shorter side, in pixels, of what the network sees of a test image: the crop of a
classifier, what a detector's or segmentor's images are resized to. At another size all steps of the
test pipeline that have one are scaled by the same factor, and windows of a sliding test with them;
where none has, images are resized after loading. Annotations are left as they are, and predictions
are compared with them as the config's own evaluator does.
"""

import contextlib
import copy
import io
from collections.abc import Iterable
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmparc.engine import UserError, runner_for_test
from mmparc.engine.config import datasets_of
from mmparc.models import ParCConv

# A task's main metric, as mmengine's logs call it.
METRICS = {'mmpretrain': 'accuracy/top1', 'mmdet': 'coco/bbox_mAP', 'mmseg': 'mIoU'}
# Steps of test pipelines that set a size: mmcv's and the three packages'.
SIZED = {'Resize': 'scale', 'ResizeEdge': 'scale', 'CenterCrop': 'crop_size', 'Pad': 'size'}
MULTIPLE = 32  # the stride of most backbones
FACTORS = [2 ** (i / 3) for i in range(-3, 4)]  # from half to twice


def kernel_rules(model: nn.Module) -> list[str]:
    """The ``resize`` of a model's ParC layers, each once; [] if it has none."""
    return sorted({m.resize for m in model.modules() if isinstance(m, ParCConv)})


def own_size(cfg: Config) -> int:
    """The size at which a config tests: its crop, else its resizing, else that of its first image.

    Raises:
        UserError: if no step of the pipeline has a size and the data set no image.
    """
    dataset = datasets_of(cfg.test_dataloader)[0]
    found = {_kind(step): step[key] for step, key in _sized_steps(dataset.pipeline)}
    for kind in ('CenterCrop', 'Resize', 'ResizeEdge'):
        if kind in found:
            return min(_sides(found[kind]))
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


def metrics_of(cfg: Config, checkpoint: str, resize: str | None) -> dict[str, float]:
    """The metrics of a test, as the config's evaluator gives them.

    Args:
        cfg: with its work directory; it is changed.
        checkpoint: of the whole model, or 'none' for random weights.
        resize: the rule of all ParC layers; None leaves each its own.

    Raises:
        UserError: see :func:`mmparc.engine.runner_for_test`.
    """
    runner = runner_for_test(cfg, checkpoint)
    for layer in runner.model.modules():
        if resize and isinstance(layer, ParCConv):
            layer.resize = resize
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        return runner.test()


def _kind(step: dict) -> str:
    return str(step['type']).rpartition('.')[2]


def _sized_steps(pipeline: Iterable[dict]) -> list[tuple[dict, str]]:
    """The steps that set a size, each with its key."""
    found = [(step, SIZED[_kind(step)]) for step in pipeline if _kind(step) in SIZED]
    return [(step, key) for step, key in found if step.get(key)]


def _sides(size: Any) -> list[int]:
    return [size] if isinstance(size, int) else list(size)


def _scaled(size: Any, factor: float) -> Any:
    if isinstance(size, int):
        return int(size * factor + 0.5)
    return tuple(_scaled(side, factor) for side in size)
