"""Models as ONNX files: what is exported, how it is checked against torch, and timed.

Needs the packages of ``mmparc[onnx]``, which are imported when they are used. An exported network
is a function of normalized images, (B, 3, H, W) in float32, to the tensors that its task goes on
with; what turns images into these and the outputs into labels or boxes stays outside.
"""

import ast
import copy
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from mmparc.engine import UNTRAINED, UserError, build_trained
from mmparc.engine.config import TASKS, are_rgb, image_settings
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
# Of a graph with complex numbers, which torch's exporter writes as real ones, only these tell.
COMPLEX_OPERATORS = {'DFT', 'STFT'}
# Values that one folded tensor may have: all that follows from the weights is computed once, but
# for what would make the file much larger than the model.
FOLDED = 2**22

Shape = tuple[int, int, int, int]


class Network(nn.Module):
    """The part of a config's model that is exported, from images to a tuple of tensors.

    Classification: the head's scores, before any softmax. Segmentation: the decode head's scores
    of all classes, resized to the images' size, before softmax and argmax. Detection: the neck's
    maps, or the backbone's where there is no neck. Their names are ``names`` (after a run).

    Args:
        cfg: a config of mmpretrain, mmdet or mmseg; it is not changed.
        checkpoint: of the whole model; 'none' for random weights, of which no block begins at 0, as
            layer scales and last norms do in training, so that a comparison sees all of them.
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

    @property
    def has_parc(self) -> bool:
        return any(isinstance(module, ParCConv) for module in self.modules())

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


def metadata(cfg: Config, network: Network, config: str, checkpoint: str) -> dict[str, str]:
    """What a file says of itself: its origin, and what its images and outputs are.

    ``mean`` and ``std`` are JSON lists of three, for values of 0 to 255 in the order ``channels``,
    'RGB' or 'BGR'; empty where images are not normalized.
    """
    images = image_settings(cfg)
    outputs = {
        'mmpretrain': 'scores of the classes, before softmax',
        'mmseg': "scores of the classes at the images' size, before softmax",
        'mmdet': "the neck's maps",
        'backbone': "the backbone's maps",
    }
    return {
        'config': config,
        'checkpoint': checkpoint,
        'mean': json.dumps(list(images.get('mean') or [])),
        'std': json.dumps(list(images.get('std') or [])),
        'channels': 'RGB' if are_rgb(images) else 'BGR',
        'outputs': outputs[network.part],
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
        UserError: if a package is missing, torch cannot export the network, or it computes with
            complex numbers.
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
    check_operators(proto)
    said = dict(metadata or {})
    if dynamic:
        said |= dict(multiple=str(multiple), smallest=str(_smallest(multiple)))
    for key, value in said.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.save(proto, path)
    return proto


def check_operators(proto: 'onnx.ModelProto') -> None:
    """Raise UserError if a model has a Fourier transform or complex numbers in it."""
    import onnx

    complex_types = {onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128}
    graphs, found = [proto.graph, *proto.functions], set()
    while graphs:
        graph = graphs.pop()
        for node in graph.node:
            if node.op_type in COMPLEX_OPERATORS:
                found.add(node.op_type)
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField('g') else attribute.graphs
        tensors = getattr(graph, 'initializer', ())
        if any(tensor.data_type in complex_types for tensor in tensors):
            found.add('complex values')
    if found:
        raise UserError(
            f'the exported model computes with {", ".join(sorted(found))}, which few runtimes '
            "have: build its ParC layers with backend='auto'"
        )


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
            f'onnxruntime cannot run what was exported: {first_line(error)}: leave --opset out, or '
            'pass another'
        ) from error


def runner(session: 'InferenceSession', shape: Shape) -> Callable[[], object]:
    """A function without arguments that runs a session once, on images of this shape."""
    images = images_of(shape).numpy()
    return lambda: session.run(None, {IMAGES: images})


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
        # one more where any size goes, so that there are odd ones
        return max(round(size * share / multiple) * multiple + (multiple == 1), _smallest(multiple))

    shares = (1.5, 1.5), (0.5, 0.5), (0.75, 1.25), (1.25, 0.5)
    sizes = [(scaled(h, a), scaled(w, b)) for a, b in shares]
    return [shape, *((batch + i % 2, channels, *size) for i, size in enumerate(sizes, 1))]


def plain_twin(config: Path) -> Path | None:
    """The plain config that a ParC config inherits; None if its only base is another kind."""
    bases = bases_of(config)
    if len(bases) != 1 or '::' in bases[0]:
        return None
    base = config.parent / bases[0]
    cfg = Config.fromfile(base)
    if cfg.get('default_scope') not in TASKS:
        return None
    # A backbone of mmparc's may be plain too: one with all of the upstream blocks kept.
    ours = str(cfg.get('model', {}).get('backbone', {}).get('type')).startswith('mmparc.')
    return None if ours and Network(cfg, UNTRAINED).has_parc else base


def bases_of(config: Path) -> list[str]:
    """The names that a config's ``_base_`` gives."""
    for node in ast.parse(config.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_':
            bases = ast.literal_eval(node.value)
            return [bases] if isinstance(bases, str) else list(bases)
    return []


def require_packages() -> None:
    """Raise UserError if one of ONNX's packages is missing, or torch is too old for them."""
    if TorchVersion(torch.__version__) < '2.6':
        raise UserError(f'torch {torch.__version__} exports no sizes left open: take torch>=2.6')
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
    smallest = _smallest(multiple) // multiple
    if multiple == 1:
        return {
            2: torch.export.Dim('height', min=smallest),
            3: torch.export.Dim('width', min=smallest),
        }
    return {
        2: multiple * torch.export.Dim('rows', min=smallest),
        3: multiple * torch.export.Dim('columns', min=smallest),
    }


def _tensors(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, dict | list | tuple):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _tensors(child)


def _draw_constants(model: nn.Module) -> None:
    """Give what begins as a constant values that no part of the model is lost by.

    Scales, biases, running statistics, and linear layers that begin at 0, as a ViT's head does.
    """
    for module in model.modules():
        for name, value in [*module._parameters.items(), *module._buffers.items()]:
            if value is None or not value.is_floating_point():
                continue
            if value.dim() > 1:
                if not value.any():
                    nn.init.normal_(value, std=0.02)
            elif name in ('bias', 'running_mean'):
                nn.init.normal_(value, std=0.1)
            elif name in ('weight', 'gamma', 'running_var'):
                nn.init.uniform_(value, 0.5, 1.5)


class _DynamicPool(nn.Module):
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
                    setattr(module, name, _DynamicPool(size))
