"""Exports: ParC of any length under torch.export, whole backbones, and ONNX files of each task.

They are compared with torch as it always runs, by backends that no export uses.
"""

import copy
import functools
import json
import sys
from pathlib import Path

import onnx
import pytest
import torch
from backbones import BACKBONES, TRANSFORMERS, build
from helpers import OLD_TORCH, ROOT, assert_close, error_line, relative_error, run_tool
from tool_calls import refusal
from torch import nn

from mmparc import engine, export
from mmparc.layers import ParCConv, ParCMixer

if OLD_TORCH:
    pytest.skip('exports need torch>=2.6', allow_module_level=True)
from torch.export import Dim  # torch 2.1 has none

CLS = ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py'
PLAIN = ROOT / 'configs/cls/convnext/convnext-micro_toy.py'
SEG = ROOT / 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py'
DET = ROOT / 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py'
TOOL = 'tools/export_onnx.py'
# equal to K, longer, shorter, odd, prime, of one row
LENGTHS = [(9, 14), (14, 9), (33, 50), (7, 2), (13, 17), (1, 1)]
VIT = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
SWIN = dict(embed_dims=16, depths=[1, 1], num_heads=[1, 1])
# ResNet18 stands for the deeper ones, which take longer.
FAMILIES = [family for family in (*BACKBONES, *TRANSFORMERS) if family != 'resnet']


def image_of(batch: int, *size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return export.images_of((batch, 3, *size), seed=1).to(dtype)


def rolled(model: nn.Module) -> nn.Module:
    """A copy whose kernels begin at another tap: the negative control."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, ParCConv):
            with torch.no_grad():
                module.weight.copy_(module.weight.roll(1, -1))
    return model


# torch.export


@pytest.mark.parametrize('resize', ['interpolate', 'interpolate_sum'])
@pytest.mark.parametrize('groups', [None, 1], ids=['depthwise', 'dense'])
def test_any_length_in_one_program(resize: str, groups: int | None) -> None:
    """Exported where the lengths are K, of which nothing may be left in the program."""
    mixer = ParCMixer(6, LENGTHS[0], groups=groups, resize=resize).double().eval()
    x = torch.randn(2, 6, *LENGTHS[0], dtype=torch.float64)
    dimensions = ({0: Dim('batch'), 2: Dim('height'), 3: Dim('width')},)
    program = torch.export.export(mixer, (x,), dynamic_shapes=dimensions).module()
    wrong = rolled(mixer)
    for batch, size in enumerate(LENGTHS, 1):
        x = torch.randn(batch, 6, *size, dtype=torch.float64)
        assert_close(program(x), mixer(x), 1e-10, f'{size}')
        if size != (1, 1):
            assert relative_error(program(x), wrong(x)) > 1e-2


@pytest.mark.parametrize('dynamic', [False, pytest.param(True, marks=pytest.mark.full)])
@pytest.mark.parametrize('family', FAMILIES)
def test_backbones(family: str, dynamic: bool) -> None:
    """Any size is one of multiples of 32: upstream's pooling asks whether a size is even."""
    model = build(family)
    model.eval()
    dimensions, sizes = None, [(2, 96, 160)]
    if dynamic:
        sides = {2: 32 * Dim('rows', min=2), 3: 32 * Dim('columns', min=2)}
        dimensions, sizes = ({0: Dim('batch', min=1), **sides},), [(1, 64, 96), (3, 160, 64)]
    images = image_of(2, 96, 160)
    program = torch.export.export(model, (images,), dynamic_shapes=dimensions).module()
    for size in sizes:
        images = image_of(*size).flip(0)
        with torch.no_grad():
            outputs, expected, wrong = program(images), model(images), rolled(model)(images)
        for a, b in zip(outputs, expected, strict=True):
            assert_close(a, b, 1e-5, f'{size}')
        assert relative_error(outputs[-1], wrong[-1]) > 1e-3


# ONNX


@functools.cache
def network_of(config: Path) -> export.Network:
    torch.manual_seed(0)
    return export.Network(engine.load_config(str(config)), 'none')


def check(network: nn.Module, path: Path, shape: export.Shape, **options) -> onnx.GraphProto:
    """Export and compare, at all the sizes that the tool compares at."""
    proto = export.export_onnx(network, path, shape, **options)
    session, wrong = export.session_of(path), rolled(network)
    multiple = options.get('multiple', 1)
    for checked in export.shapes_to_check(shape, options.get('dynamic', False), multiple):
        errors = export.parity(session, network, checked)
        assert errors and all(error <= 2e-5 for error in errors.values()), (checked, errors)
        assert max(export.parity(session, wrong, checked).values()) > 1e-3
    assert not {node.op_type for node in proto.graph.node} & {'DFT', 'STFT'}
    return proto.graph


def without_images(graph: onnx.GraphProto) -> list[str]:
    """The operators that compute from the weights alone."""
    known = {tensor.name for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if known.issuperset(filter(None, node.input)):
            known.update(node.output)
            found.append(node.op_type)
    return found


class Named(nn.Sequential):
    """Layers in a network's place."""

    def names(self, count: int) -> list[str]:
        return ['output']

    def forward(self, images: torch.Tensor) -> tuple:
        return (super().forward(images),)


@pytest.mark.parametrize('groups', [None, 1], ids=['depthwise', 'dense'])
def test_a_layer(groups: int | None, tmp_path: Path) -> None:
    """Its kernels are resized: in the file for any size, and before it for one."""
    layer = Named(ParCMixer(6, (9, 70), groups=groups)).eval()
    for dynamic, shapes in ((False, []), (True, [(3, 6, 97, 131), (1, 6, 71, 64)])):
        path = tmp_path / f'{dynamic}.onnx'
        graph = export.export_onnx(layer, path, (1, 6, 64, 70), dynamic=dynamic).graph
        session = export.session_of(path)
        for shape in [(1, 6, 64, 70), *shapes]:
            assert export.parity(session, layer, shape)['output'] < 1e-5
            assert export.parity(session, rolled(layer), shape)['output'] > 1e-2
        assert without_images(graph) == []
        assert dynamic == ('Range' in {node.op_type for node in graph.node})


def test_classifier_of_one_size(tmp_path: Path) -> None:
    network = network_of(CLS)
    graph = check(network, tmp_path / 'a.onnx', (2, 3, 64, 96))
    assert without_images(graph) == []
    assert [output.name for output in graph.output] == ['logits']
    # a depthwise ParC is two products and what is added; nothing moves the map
    assert 'Gather' not in {node.op_type for node in graph.node}
    # no random weight is near 0, at which ParC would hardly show in a comparison
    assert all(parameter.abs().max() > 1e-2 for parameter in network.parameters())


@pytest.mark.full
def test_segmentor_of_any_size(tmp_path: Path) -> None:
    graph = check(network_of(SEG), tmp_path / 'a.onnx', (1, 3, 128, 160), dynamic=True)
    names = [d.dim_param for d in graph.input[0].type.tensor_type.shape.dim]
    assert names == ['batch', '', 'height', 'width']


@pytest.mark.full
def test_detector_of_any_size(tmp_path: Path) -> None:
    """Through its neck, at multiples of 32."""
    network = network_of(DET)
    multiple = export.size_multiple(engine.load_config(str(DET)))
    assert multiple == 32
    graph = check(network, tmp_path / 'a.onnx', (1, 3, 128, 160), dynamic=True, multiple=multiple)
    assert [output.name for output in graph.output] == ['feat0']


@pytest.mark.full
@pytest.mark.parametrize('kind', ['vit', 'swin'])
def test_transformer_of_any_size(kind: str, tmp_path: Path) -> None:
    """Of multiples of 32: both pad images to their patches, for which a file knows one size."""
    config = engine.load_config(str(ROOT / 'configs/cls/swin/parc-swin-t_toy.py'))
    if kind == 'vit':
        config.model.backbone = dict(type='mmparc.ParCVisionTransformer', arch=VIT)
        config.model.neck = None
    else:  # of two stages, with one merging
        config.model.backbone = dict(type='mmparc.ParCSwinTransformer', arch=SWIN, out_indices=(1,))
    config.model.head.in_channels = 32
    torch.manual_seed(0)
    network = export.Network(config, 'none')
    check(network, tmp_path / 'a.onnx', (1, 3, 96, 160), dynamic=True, multiple=32)


def test_pools_of_any_size() -> None:
    for size, count in (((7, 11), 1), ((4, 12), 3), ((1, 5), 6), ((7, 11), 2)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        pool = nn.AdaptiveAvgPool2d((count, 2))
        assert_close(export.DynamicPool((count, 2))(x), pool(x), 1e-12)


def test_errors_of_torch_are_one_line(tmp_path: Path) -> None:
    class Refuses(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError('too small\nand more')

    layer = Named(Refuses())
    for call in (
        lambda: export.export_onnx(layer, tmp_path / 'a.onnx', (1, 3, 4, 5)),
        lambda: export.parity(None, layer, (1, 3, 4, 5)),
    ):
        with pytest.raises(engine.UserError, match=r'^[^\n]*too small$'):
            call()
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(engine.UserError, match=r"onnxruntime.*pip install 'mmparc\[onnx\]'"):
        export.require_packages()


def test_shapes_that_are_compared() -> None:
    assert export.shapes_to_check((1, 3, 97, 131), False, 1) == [(1, 3, 97, 131)]
    for multiple in (1, 32):
        shapes = export.shapes_to_check((1, 3, 128, 160), True, multiple)
        sides = [shape[2:] for shape in shapes]
        assert len(set(sides)) == 5 and {shape[0] for shape in shapes} == {1, 2}
        assert all(side % multiple == 0 and side >= 64 for pair in sides for side in pair)
        assert any(h > w for h, w in sides) and any(h < w for h, w in sides)
        assert multiple > 1 or any(h % 2 and w % 2 for h, w in sides)


# The tool


def test_tool(tmp_path: Path) -> None:
    """A checkpoint, into a new folder, beside the twin."""
    checkpoint, out = tmp_path / 'a.pth', tmp_path / 'new/a.onnx'
    network = network_of(CLS)
    torch.save(dict(state_dict=network.model.state_dict()), checkpoint)
    options = ['--shape', 64, 96, '--plain', PLAIN, '--seconds', 0]
    result = run_tool(TOOL, CLS, checkpoint, out, *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for text in ('1 x 3 x 64 x 96', CLS.stem, PLAIN.stem, 'ratio', str(out)):
        assert text in result.stdout
    assert sorted(tmp_path.rglob('*.*')) == [checkpoint, out]
    told = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert told['config'] == str(CLS) and told['checkpoint'] == str(checkpoint)
    assert json.loads(told['mean']) == [123.675, 116.28, 103.53]
    assert told['channels'] == 'RGB'
    # the checkpoint's values, not others
    session = export.session_of(out)
    assert max(export.parity(session, network, (1, 3, 64, 96)).values()) < 1e-5
    torch.manual_seed(1)
    other = export.Network(engine.load_config(str(CLS)), 'none')
    assert max(export.parity(session, other, (1, 3, 64, 96)).values()) > 1e-2


def test_what_the_tool_refuses(tmp_path: Path) -> None:
    (tmp_path / 'there.onnx').write_text('kept')
    torch.save(dict(state_dict=dict(a=torch.zeros(1))), tmp_path / 'other.pth')
    for args, named in (
        ([CLS, 'none', 'there.onnx'], 'there.onnx'),
        ([CLS, 'none', 'a.pt'], 'a.pt'),
        ([CLS, 'no.pth', 'a.onnx'], 'no.pth'),
        ([CLS, 'other.pth', 'new/a.onnx'], 'other.pth'),
        ([CLS, 'none', 'a.onnx', '--dynamic', '--shape', 32, 64], '64'),
        ([DET, 'none', 'a.onnx', '--dynamic', '--shape', 100, 128], '32'),
        ([CLS, 'none', 'a.onnx', '--multiple', 32], '--dynamic'),
        ([CLS, 'none', 'a.onnx', '--batch', 0], '--batch'),
    ):
        shape = [] if '--shape' in args else ['--shape', 64, 64]
        assert named in error_line(TOOL, *args, *shape, cwd=tmp_path)
    assert (tmp_path / 'there.onnx').read_text() == 'kept'


@pytest.mark.parametrize('error', [2e-4, float('nan')])
def test_nothing_is_written_where_outputs_differ(error, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr('logging.disable', lambda level: None)  # it would last
    monkeypatch.setattr(export, 'export_onnx', lambda network, path, *a, **kw: path.touch())
    monkeypatch.setattr(export, 'session_of', lambda path: None)
    monkeypatch.setattr(export, 'parity', lambda *args: dict(first=1e-7, second=error))
    args = (CLS, 'none', 'a.onnx', '--shape', 64, 64)
    assert 'differs from torch' in refusal('export_onnx.py', *args, cwd=tmp_path)
    assert not list(tmp_path.iterdir())
