"""The outputs of a backbone or a neck, seen by running it once on noise with random weights."""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import to_2tuple
from torch import Tensor, nn

IMG_SIZE = 224  # where the backbone has no img_size of its own
NECK_SIZE = 512  # of the image that a neck's inputs are maps of


class Feature(NamedTuple):
    """One output: its channels, and its total stride or None for a vector (B, C)."""

    channels: int
    stride: int | None


@dataclass(frozen=True)
class Features:
    """A backbone's outputs.

    ``in_training``: how many it has there. ``batch_norm``: whether it has batch norms. ``unused``:
    the names of parameters that get no gradient from these outputs.
    """

    outputs: list[Feature]
    in_training: int
    batch_norm: bool
    unused: frozenset[str]

    @property
    def strides(self) -> list[int | None]:
        return [output.stride for output in self.outputs]


def features_of(backbone: dict, scope: str, backward: bool) -> Features:
    """Build a backbone without its checkpoint, and run it on noise.

    Without ``backward`` all parameters count as unused.

    Raises:
        ValueError: if an output is neither a map (B, C, H, W) nor a vector (B, C).
    """
    cfg = copy.deepcopy(backbone)
    for key in ('init_cfg', 'pretrained'):
        cfg.pop(key, None)
    module = _built(cfg, scope)
    size = to_2tuple(cfg.get('img_size') or IMG_SIZE)
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(backward):
        images = torch.randn(2, cfg.get('in_channels', 3), *size)  # a batch norm needs two
        outputs = _tensors(module(images[:1]))
        if backward:
            sum(output.sum() for output in outputs).backward()
        module.train()
        in_training = len(_tensors(module(images)))
    return Features(
        [_feature(output, size[0]) for output in outputs],
        in_training,
        batch_norm=any(isinstance(m, nn.BatchNorm2d) for m in module.modules()),
        unused=frozenset(
            name
            for name, parameter in module.named_parameters()
            if parameter.requires_grad and parameter.grad is None
        ),
    )


def neck_outputs(neck: dict, scope: str, inputs: Sequence[Feature]) -> list[Feature]:
    """A neck's outputs for these maps.

    Raises:
        ValueError: if an output is neither a map nor a vector.
    """
    module = _built(copy.deepcopy(neck), scope)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        maps = tuple(torch.randn(1, c, NECK_SIZE // s, NECK_SIZE // s) for c, s in inputs)
        return [_feature(output, NECK_SIZE) for output in _tensors(module(maps))]


def accepts(backbone_type: str, setting: str) -> bool:
    """Whether one of our backbones takes a setting, itself or through its **kwargs."""
    owners = [c for c in MODELS.get(backbone_type).__mro__ if '__init__' in vars(c)]
    return any(setting in inspect.signature(owner.__init__).parameters for owner in owners)


def _built(cfg: dict, scope: str) -> nn.Module:
    with DefaultScope.overwrite_default_scope(scope):
        module = revert_sync_batchnorm(MODELS.build(cfg))
    module.eval()  # apart, since some of mmpretrain's backbones return None
    return module


def _feature(output: Tensor, height: int) -> Feature:
    if output.dim() == 2:
        return Feature(output.shape[1], None)
    if output.dim() == 4:
        return Feature(output.shape[1], round(height / output.shape[2]))
    raise ValueError(f'expected a 4-D feature map, got shape {tuple(output.shape)}')


def _tensors(output: Any) -> list[Tensor]:
    found = [output] if isinstance(output, Tensor) else output
    if not isinstance(found, list | tuple) or not all(isinstance(t, Tensor) for t in found):
        raise ValueError(f'expected feature maps, got {type(output).__name__}')
    return list(found)
