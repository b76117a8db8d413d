"""Models as ONNX files: the exported part of each task's model, and its comparison with torch.

Needs the packages of ``mmparc[onnx]``, which are imported when they are used. An exported network
is a function of normalized images, (B, 3, H, W) in float32, to the tensors that its task goes on
with; preprocessing, and what turns outputs into labels or boxes, are not part of it.
"""

import copy
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from mmparc.engine import UNTRAINED, UserError, build_trained
from mmparc.engine.config import are_rgb, image_settings
from mmparc.engine.errors import first_line
from mmparc.models import ParCConv

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession

IMAGES = 'images'
BOUND = 1e-4  # of the relative error, max|a - b| / max|b|, in float32
# Smallest side of a dynamic size: the deepest map, of stride 32, then has two rows. One row would
# be another program to torch.export.
SMALLEST = 64
# Values in one tensor that is computed before the export: all that follows from the weights is,
# except what would make the file much larger than the model.
FOLDED = 2**22
Shape = tuple[int, int, int, int]


class Network(nn.Module):
    """The part of a config's model that is exported, from images to a tuple of tensors.

    Classification: the head's scores, before any softmax. Segmentation: the decode head's scores
    of all classes, resized to the images' size, before softmax and argmax. Detection: the neck's
    maps, or the backbone's where there is no neck. Their names are ``names`` (after a run).

    Args:
        cfg: a config of mmpretrain, mmdet or mmseg; it is not changed.
        checkpoint: of the whole model; 'none' for random weights, also where training starts at 0
            (layer scales, last norms), so that a comparison sees all of them.
        backbone: whether to export the backbone's maps alone.

    Raises:
        UserError: if the checkpoint is not one of this model.
    """

    def __init__(self, cfg: Config, checkpoint: str, backbone: bool = False) -> None:
        super().__init__()
        self.model = build_trained(copy.deepcopy(cfg), checkpoint)
        if checkpoint == UNTRAINED:
            _draw_constants(self.model)
        self.eval()
        self.requires_grad_(False)
        self.part = 'backbone' if backbone else cfg.default_scope
        for layer in self.modules():
            if isinstance(layer, ParCConv):
                layer.backend = 'auto'  # the one with a form of its own for exports, without FFT

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.part == 'backbone':
            outputs = self.model.backbone(images)
        elif self.part == 'mmdet':
            outputs = self.model.extract_feat(images)
        elif self.part == 'mmseg':
            outputs = self.model.encode_decode(images, [dict(img_shape=images.shape[2:])])
        else:
            outputs = self.model(images, mode='tensor')
        return tuple(_tensors(outputs))

    def names(self, count: int) -> list[str]:
        """Those of ``count`` outputs."""
        if self.part in ('backbone', 'mmdet'):
            return [f'feat{i}' for i in range(count)]
        return ['logits', *(f'logits{i}' for i in range(1, count))]


def size_multiple(cfg: Config) -> int:
    """What a config pads both sides of its images to a multiple of; 1 if it does not."""
    return image_settings(cfg).get('pad_size_divisor') or 1


def metadata(cfg: Config, config: str, checkpoint: str) -> dict[str, str]:
    """The origin and the images of a network, as an ONNX file keeps them.

    ``mean`` and ``std`` are JSON lists of three, for values of 0 to 255 in the order ``channels``,
    'RGB' or 'BGR'; empty where images are not normalized.
    """
    images = image_settings(cfg)
    return {
        'config': config,
        'checkpoint': checkpoint,
        'mean': json.dumps(list(images.get('mean') or [])),
        'std': json.dumps(list(images.get('std') or [])),
        'channels': 'RGB' if are_rgb(images) else 'BGR',
    }


def export_onnx(
    network: Network,
    path: Path,
    shape: Shape,
    *,
    dynamic: bool = False,
    multiple: int = 1,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> 'onnx.ModelProto':
    """Write a network as an ONNX file, and return what was written.

    Args:
        network: in evaluation mode; it is not changed.
        path: of the file.
        shape: (B, 3, H, W) of the images.
        dynamic: whether the file takes any batch, and any H and W from :data:`SMALLEST` on.
        multiple: what H and W of a dynamic file are multiples of.
        opset: of ONNX; by default torch's own choice.
        metadata: strings to keep in the file; ``multiple`` and ``smallest``, of the sides of a
            dynamic one, are added.

    Raises:
        UserError: if a package is missing, or torch cannot export the network.
    """
    require_packages()
    import onnx
    from onnxscript import optimizer

    network = copy.deepcopy(network)
    images, dimensions = torch.zeros(shape), None
    if dynamic:
        _make_pools_dynamic(network)
        # Not 1: a batch of that would be a program for it alone.
        images = torch.zeros(max(2, shape[0]), *shape[1:])
        dimensions = ({0: torch.export.Dim('batch', min=1), **_sides(multiple)},)
    try:
        with torch.no_grad():
            names = network.names(len(network(images)))
            program = torch.export.export(
                network,
                (images,),
                dynamic_shapes=dimensions,
                # Upstream's pooling and reshaping ask what sizes are, where the answer changes
                # nothing (torch's shape of a pooled map tells even from odd ones). As assertions
                # the questions are left out of the file, and parity is checked at other sizes.
                prefer_deferred_runtime_asserts_over_guards=dynamic,
            )
            made = torch.onnx.export(
                program,
                input_names=[IMAGES],
                output_names=names,
                dynamic_shapes=({0: 'batch', 2: 'height', 3: 'width'},) if dynamic else None,
                opset_version=opset,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except Exception as error:  # upstream's modules may raise anything
        raise UserError(f'torch cannot export this model: {first_line(_root(error))}') from error
    optimizer.optimize(made.model, input_size_limit=FOLDED, output_size_limit=FOLDED)
    proto = made.model_proto
    kept = dict(metadata or {})
    if dynamic:
        kept |= dict(multiple=str(multiple), smallest=str(_smallest(multiple)))
    for key, value in kept.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.save(proto, path)
    return proto


def session_of(path: Path) -> 'InferenceSession':
    """An onnxruntime session on the CPU, with as many threads as torch has.

    Raises:
        UserError: if a package is missing, or onnxruntime does not take the file.
    """
    require_packages()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # its classes are of no public module
        raise UserError(
            f'onnxruntime cannot run the exported model: {first_line(error)}: leave --opset out, '
            'or pass another'
        ) from error


def images_of(shape: Shape, seed: int = 0) -> Tensor:
    """Normalized images of noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parity(session: 'InferenceSession', network: Network, shape: Shape) -> dict[str, float]:
    """The relative error of each output, max|a - b| / max|b|, against torch's for the same images.

    NaN, which no bound lets pass, where a value is none.

    Raises:
        UserError: if one of the two cannot run, or the outputs differ in number or shape.
    """
    images = images_of(shape)
    try:
        with torch.no_grad():
            expected = network(images)
        made = session.run(None, {IMAGES: images.numpy()})
    except Exception as error:  # upstream's modules and onnxruntime may raise anything
        size = ' x '.join(map(str, shape))
        raise UserError(f'images of {size}: {first_line(error)}') from error
    actual = [torch.from_numpy(output) for output in made]
    shapes = [[tuple(output.shape) for output in outputs] for outputs in (actual, expected)]
    if shapes[0] != shapes[1]:
        raise UserError(f'the exported model returns {shapes[0]}, torch {shapes[1]}')
    names = network.names(len(expected))
    return {n: relative_error(a, b) for n, a, b in zip(names, actual, expected, strict=True)}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """max|actual - expected| / max|expected|."""
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def shapes_to_check(shape: Shape, dynamic: bool, multiple: int) -> list[Shape]:
    """The shape of an export; for a dynamic one also a larger, a smaller and two oblong ones."""
    if not dynamic:
        return [shape]
    batch, channels, h, w = shape

    def scaled(size: int, share: float) -> int:
        # where any size is allowed, add 1 to check odd sizes too
        return max(round(size * share / multiple) * multiple + (multiple == 1), _smallest(multiple))

    shares = (1.5, 1.5), (0.5, 0.5), (0.75, 1.25), (1.25, 0.5)
    sizes = [(scaled(h, a), scaled(w, b)) for a, b in shares]
    return [shape, *((batch + i % 2, channels, *size) for i, size in enumerate(sizes, 1))]


def require_packages() -> None:
    """Raise UserError if one of ONNX's packages is missing, or torch is too old for them."""
    if TorchVersion(torch.__version__) < '2.6':
        raise UserError(f'torch {torch.__version__} is too old for exports: install torch>=2.6')
    for name in ('onnx', 'onnxruntime', 'onnxscript'):
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing = error.name or name
            raise UserError(f"{missing} is not installed: pip install 'mmparc[onnx]'") from None


def _root(error: BaseException) -> BaseException:
    """Where an error began; the exporter wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _smallest(multiple: int) -> int:
    return -(-SMALLEST // multiple) * multiple


def _sides(multiple: int) -> dict[int, Any]:
    """torch.export's dynamic height and width."""
    names, smallest = {2: 'height', 3: 'width'}, _smallest(multiple) // multiple
    if multiple == 1:
        return {dim: torch.export.Dim(name, min=smallest) for dim, name in names.items()}
    steps = {dim: torch.export.Dim(f'{name}_steps', min=smallest) for dim, name in names.items()}
    return {dim: multiple * step for dim, step in steps.items()}


def _tensors(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, dict | list | tuple):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _tensors(child)


def _draw_constants(model: nn.Module) -> None:
    """Draw new values for constants that would hide parts of the model.

    Scales, biases, running statistics, and linear layers that begin at 0, as a ViT's head does.
    """
    for module in model.modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, value in own:
            if not value.is_floating_point():
                continue
            if value.dim() > 1:
                if not value.any():
                    nn.init.normal_(value, std=0.02)
            elif name in ('bias', 'running_mean'):
                nn.init.normal_(value, std=0.1)
            elif name in ('weight', 'gamma', 'running_var'):
                nn.init.uniform_(value, 0.5, 1.5)


class DynamicPool(nn.Module):
    """nn.AdaptiveAvgPool2d for any size: a product with a matrix of shares along each axis."""

    def __init__(self, output_size: Sequence[int]) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        for dim, count in ((2, self.output_size[0]), (3, self.output_size[1])):
            size, bins = x.shape[dim], torch.arange(count, device=x.device)[:, None]
            first, end = bins * size // count, -(-(bins + 1) * size // count)
            position = torch.arange(size, device=x.device)
            inside = ((position >= first) & (position < end)).to(x.dtype)
            shares = inside / inside.sum(1, keepdim=True)
            x = torch.matmul(shares, x) if dim == 2 else torch.matmul(x, shares.mT)
        return x


def _make_pools_dynamic(model: nn.Module) -> None:
    """Exchange the pools to more than one pixel: torch exports these for one size alone."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                size = child.output_size
                size = (size, size) if isinstance(size, int) else tuple(size)
                if None not in size and size != (1, 1):
                    setattr(module, name, DynamicPool(size))
