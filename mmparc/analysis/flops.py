"""Parameters and multiply-adds of a config's model, with ParC by each of its backends.

mmengine's counter on a trace of the model's own forward pass, with what it lacks for ParC. Its
convention: a multiply-add counts 1; a value counts 5 in a LayerNorm or GroupNorm, 2 in a BatchNorm,
1 in adaptive average pooling, 1 or 4 in nearest or bilinear upsampling; other elementwise
operations, reductions, and what moves data count 0. Besides, here: bicubic upsampling 16; a fast
real Fourier transform of length n has 5/2 n log2 n floating-point operations, two to a
multiply-add; a complex product is 4 multiply-adds; a resized tap 2. Counted is what a backend
computes, with the zeros that `direct` pads by, and the transforms of a dense `fft` as the matrix
products that they are. What prepares a kernel and applies it to its position embedding counts too,
though evaluation keeps the result for the next map of that size. Operations that none of this
covers are reported as unknown.
"""

import copy
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.analysis.jit_handles import bmm_flop_jit, elementwise_flop_counter, get_shape
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmparc.engine import UserError, building
from mmparc.engine.config import datasets_of, image_settings
from mmparc.models import ParCConv, ParCMixer
from mmparc.ops import BACKENDS

# Counted as 0 beyond what mmengine counts as 0, each in place too.
_FREE = """
    __or__ _conj add avg_pool2d clone cos cumsum div exp feature_dropout fill flip gelu hardsigmoid
    hardswish hardtanh im2col item leaky_relu linspace log log2 logical_and lt mT max_pool2d mean
    meshgrid minimum ne neg new_ones ones_like pad pow reciprocal repeat resolve_conj rsub scatter
    sigmoid silu sin softmax sort sqrt sub sum tanh topk unflatten unfold where
"""


@dataclass(frozen=True)
class Count:
    """Multiply-adds of one forward pass: all of them, those in ParC layers, and what is missing.

    ``unknown`` holds how often each operation was met that the counter does not know.
    """

    total: int
    parc: int
    unknown: Counter[str]


@dataclass(frozen=True)
class Report:
    """What a config's model has and costs for one image.

    Attributes:
        params: all parameters, those of auxiliary heads too.
        size: (H, W) of the image, ``source`` says where it is from.
        padded: (H, W) of what the backbone sees.
        counts: by backend; for a model without ParC one count, under ''.
    """

    params: int
    size: tuple[int, int]
    source: str
    padded: tuple[int, int]
    counts: dict[str, Count]


def count_config(
    cfg: Config, size: tuple[int, int] | None = None, backends: Sequence[str] = BACKENDS
) -> Report:
    """Count a config's model on the CPU, with random weights, for one image as in a test.

    A two-stage detector's heads see as many proposals as its test_cfg allows, whatever the
    weights; auxiliary heads are not part of the test.

    Args:
        cfg: a config of mmpretrain, mmdet or mmseg.
        size: (H, W) of the image; by default :func:`input_size`.
        backends: by which ParC is counted.

    Raises:
        UserError: if the size is not given and the config has none.
    """
    size, source = (size, 'as asked for') if size else input_size(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = _build(cfg)
        sample = BaseDataElement(
            metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0))
        )
        image = torch.zeros(3, *size, dtype=torch.uint8)
        data = model.data_preprocessor(dict(inputs=[image], data_samples=[sample]), False)
        inputs = data['inputs']
        model = _Forward(model, data['data_samples'])
        counts = {}
        for backend in backends if _parc_layers(model) else ['']:
            set_backend(model, backend)
            counts[backend] = count_multiply_adds(model, inputs)
    params = sum(p.numel() for p in model.parameters())
    return Report(params, size, source, tuple(inputs.shape[-2:]), counts)


def count_multiply_adds(model: nn.Module, inputs: Tensor) -> Count:
    """Count one forward pass of ``model``, in the mode that it is in."""
    analyzer = FlopAnalyzer(model, (inputs,)).set_op_handle(**_HANDLES)
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analyzer.tracer_warnings('none')
    with torch.no_grad():
        total = analyzer.total()
    parc = sum(map(analyzer.total, _parc_layers(model)))
    return Count(total, parc, Counter(analyzer.unsupported_ops()))


def input_size(cfg: Config) -> tuple[tuple[int, int], str]:
    """A config's own (H, W) and where it says so.

    Classification: the crop of the test images. Detection: what the test images are resized to,
    taken as landscape where the aspect ratio is kept. Segmentation: the crop of the training
    images, since test images keep their shape.

    Raises:
        UserError: if the config has none.
    """
    if cfg.default_scope == 'mmseg':
        size, source = image_settings(cfg).get('size'), "data_preprocessor's size"
    else:
        kind, key = {
            'mmpretrain': ('CenterCrop', 'crop_size'),
            'mmdet': ('Resize', 'scale'),
        }[cfg.default_scope]
        pipelines = [data.get('pipeline') or [] for data in datasets_of(cfg.get('test_dataloader'))]
        steps = [t for p in pipelines for t in p if str(t['type']).rpartition('.')[2] == kind]
        size, source = steps[-1].get(key) if steps else None, f"the test images' {kind}"
        if cfg.default_scope == 'mmdet' and size and not isinstance(size, int):
            size = size[::-1]  # its scales are (W, H)
    if not size:
        raise UserError('the config does not say how large its images are: pass --shape H W')
    return ((size, size) if isinstance(size, int) else tuple(size)), source


def _build(cfg: Config) -> nn.Module:
    """The model in test mode; its weights stay as the constructors leave them."""
    model_cfg = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    rpn = (model_cfg.get('test_cfg') or {}).get('rpn')
    if rpn and rpn.get('nms'):
        # Nothing overlaps by more than 1: the number of proposals is always the largest.
        rpn.nms.iou_threshold = 1.0
    with building('the model'):
        return revert_sync_batchnorm(MODELS.build(model_cfg)).eval()


def _parc_layers(model: nn.Module) -> dict[str, nn.Module]:
    """{name: layer} of the outermost ones: a mixer does not call the two that it holds."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, ParCConv | ParCMixer)}
    held = {part for layer in layers.values() for part in layer.modules() if part is not layer}
    return {name: layer for name, layer in layers.items() if layer not in held}


def set_backend(model: nn.Module, backend: str) -> None:
    """Make all ParC layers of a model compute by one backend."""
    for module in model.modules():
        if isinstance(module, ParCConv):
            module.backend = backend


class _Forward(nn.Module):
    """The network without post-processing, as a function of the images alone."""

    def __init__(self, model: nn.Module, samples: list) -> None:
        super().__init__()
        self.model = model
        self.samples = samples

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(_tensors(self.model(inputs, self.samples, mode='tensor')))


def _tensors(node: Any) -> Iterable[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, dict | list | tuple):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _tensors(child)


# Handles take an operation's inputs and outputs as values of the trace.


def _product(inputs: list, outputs: list) -> int:
    is_complex = (outputs[0].type().scalarType() or '').startswith('Complex')
    return 4 * math.prod(get_shape(outputs[0])) if is_complex else 0


def _real_transform(value: Any, dim: Any) -> int:
    """The multiply-adds of transforms to or from the real tensor ``value``."""
    shape = get_shape(value)
    return round(5 / 4 * math.prod(shape) * math.log2(shape[dim.toIValue()]))


def _attention(inputs: list, outputs: list) -> int:
    """(..., L, E) queries, (..., S, E) keys and (..., S, E_v) values."""
    (*batch, length, width), (*_, count, out) = get_shape(inputs[0]), get_shape(inputs[2])
    return math.prod(batch) * length * count * (width + out)


_HANDLES = {
    **{f'aten::{name}{place}': None for name in _FREE.split() for place in ('', '_')},
    'aten::mul': _product,
    'aten::mul_': _product,
    'aten::baddbmm': lambda inputs, outputs: bmm_flop_jit(inputs[1:3], outputs),
    'aten::fft_rfft': lambda inputs, outputs: _real_transform(inputs[0], inputs[2]),
    'aten::fft_irfft': lambda inputs, outputs: _real_transform(outputs[0], inputs[2]),
    'aten::scaled_dot_product_attention': _attention,
    'aten::upsample_bicubic2d': elementwise_flop_counter(0, 16),
    'aten::upsample_linear1d': elementwise_flop_counter(0, 2),
}
