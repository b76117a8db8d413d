"""The effective receptive field of a backbone: what each pixel counts for the middle of its map.

Luo et al., 2016 (arXiv 1701.04128), measured as in RepLKNet (Ding et al., 2022, arXiv 2203.06717):
the values of the last map's central position are rectified and summed over the channels, and this
sum is differentiated by the pixels. (Rectified, since a LayerNorm's channels add up to a constant.)
A pixel's contribution is the gradient's absolute value, summed over the input's channels and
averaged over images; RepLKNet keeps the positive part alone, but what lowers an output counts, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

ALMOST_NOTHING = 1e-3  # a scale that hides its branch: layer scales begin at 1e-6 to 1e-4


@dataclass(frozen=True)
class Field:
    """An effective receptive field, and the share of the image's area that holds so much of it.

    Attributes:
        contribution: (H, W), what each pixel contributes; at least 0, in any unit.
        centre: (y, x) of the middle of the field, in pixels from the upper left corner.

    Raises:
        ValueError: if the contributions are no such map, or all 0.
    """

    contribution: Tensor
    centre: tuple[float, float]

    def __post_init__(self) -> None:
        values = self.contribution
        if values.dim() != 2 or not values.isfinite().all() or (values < 0).any():
            raise ValueError('a receptive field is a map (H, W) of finite values of at least 0')
        if not values.any():
            raise ValueError('no pixel contributes to the middle of the map')

    def pixels(self, percent: float) -> float:
        """The smallest set of pixels that holds so much of the contribution, as a share of all.

        It takes the shape of the field: of a cross it counts the arms and not what lies between
        them, and it needs no centre. ``percent`` is above 0 and at most 100; the share is one of 1.

        Raises:
            ValueError: if ``percent`` is out of range.
        """
        held = self.contribution.double().flatten().sort(descending=True).values.cumsum(0)
        return (_first(held, percent) + 1) / len(held)

    def rectangle(self, percent: float) -> float:
        """The smallest rectangle about the centre that holds so much, as a share of the area.

        RepLKNet's measure: how far the field reaches. The rectangle has the image's aspect ratio,
        consists of whole pixels and ends where the image does. Of a cross it counts what lies
        between the arms as well. ``percent`` and share as in :meth:`pixels`.

        Raises:
            ValueError: if ``percent`` is out of range.
        """
        (height, width), (y, x) = self.contribution.shape, self.centre
        # the size, in images, of the smallest such rectangle around each pixel
        down = ((torch.arange(height).double() + 0.5 - y).abs() + 0.5) * 2 / height
        right = ((torch.arange(width).double() + 0.5 - x).abs() + 0.5) * 2 / width
        sizes, order = torch.maximum(down[:, None], right).flatten().sort()
        held = self.contribution.double().flatten()[order.to(self.contribution.device)].cumsum(0)
        size = sizes[_first(held, percent)]
        return int((sizes <= size + 1e-9).sum()) / len(sizes)


def _first(held: Tensor, percent: float) -> int:
    """The index at which a growing area first holds so much."""
    if not 0 < percent <= 100:
        raise ValueError(f'a share is above 0 and at most 100 percent, got {percent}')
    return int((held < percent / 100 * held[-1]).sum())


def receptive_field(backbone: nn.Module, images: Tensor) -> Field:
    """The effective receptive field of the middle of a backbone's last map, in evaluation mode.

    The backbone is left as it was: its modes, its parameters and their gradients. Of a map with an
    even number of rows or columns the middle is the first of the second half. The field's centre is
    that of the pixels which this position stands for, at equal distances; a padded convolution of
    stride 2 looks at pixels half a step up and to the left of these, at each stage.

    Args:
        backbone: a module that returns a map (B, C, h, w), or a list or tuple that ends with one.
        images: (B, 3, H, W), as the backbone takes them, on its device.

    Raises:
        ValueError: if there is no image, the last output is no map, or no pixel counts for it.
    """
    if images.dim() != 4 or not len(images):
        raise ValueError(f'images are (B, 3, H, W) with B > 0, got {tuple(images.shape)}')
    height, width = images.shape[2:]
    contribution = torch.zeros(height, width, dtype=torch.float64, device=images.device)
    with _frozen(backbone), torch.enable_grad():
        for image in images.detach():  # one at a time: memory for one
            pixels = image[None].clone().requires_grad_()
            last = _last_map(backbone(pixels))
            rows, columns = last.shape[2:]
            row, column = rows // 2, columns // 2
            last[:, :, row, column].relu().sum().backward()
            contribution += pixels.grad[0].abs().sum(0)
    centre = (row + 0.5) * height / rows, (column + 0.5) * width / columns
    return Field(contribution / len(images), centre)


def _last_map(outputs: object) -> Tensor:
    last = outputs[-1] if isinstance(outputs, list | tuple) and outputs else outputs
    if not isinstance(last, Tensor) or last.dim() != 4:
        what = tuple(last.shape) if isinstance(last, Tensor) else type(last).__name__
        raise ValueError(f"the backbone's last output is no map (B, C, h, w) but {what}")
    if not last.requires_grad:
        raise ValueError("the backbone's last output does not depend on its input's pixels")
    return last


@contextmanager
def _frozen(backbone: nn.Module) -> Iterator[None]:
    """In evaluation mode and without gradients of parameters, as long as the context lasts."""
    # Each module's own mode: frozen stages differ. Parameters are switched off rather than left
    # out of a torch.autograd.grad, which with_cp's reentrant checkpoints refuse.
    modes = [(module, module.training) for module in backbone.modules()]
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    try:
        for module, _ in modes:
            module.training = False
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter in trained:
            parameter.requires_grad_(True)


def prepare_untrained(backbone: nn.Module, images: Tensor) -> None:
    """Let every branch of a network with random weights count, as in training.

    Scales that start at (almost) nothing, such as ConvNeXt's layer scale of 1e-6 and the last norm
    of a ResNet's block, become 1: with them each block is its skip path, and the fields of twins
    are those of their stems. And batch norms take the statistics of these images, as they would in
    a training step; with those that they are made with (0 and 1) a branch weighs whatever its
    initial weights happen to give. Those behind a global average keep them: what tells a few images
    of noise apart there is so little that it would be amplified out of all proportion.

    Args:
        backbone: it is changed in place.
        images: (B, 3, H, W), as the backbone takes them, on its device.
    """
    for name, parameter in backbone.named_parameters():
        bias = name.rpartition('.')[2].endswith('bias')
        if parameter.dim() == 1 and not bias and parameter.abs().max() <= ALMOST_NOTHING:
            nn.init.ones_(parameter)
    norms = {m: m.momentum for m in backbone.modules() if isinstance(m, _BatchNorm)}
    hooks = [norm.register_forward_pre_hook(_train_on_maps) for norm in norms]
    try:
        with _frozen(backbone), torch.no_grad():
            for norm in norms:
                norm.momentum = 1.0  # nothing stays of the statistics before
            backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in norms.items():
            norm.momentum = momentum


def _train_on_maps(norm: nn.Module, args: tuple[Tensor]) -> None:
    norm.training = args[0][0, 0].numel() > 1
