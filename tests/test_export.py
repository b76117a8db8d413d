"""Exports: ParC of any length under torch.export, whole backbones, and ONNX files of each task.

The other side of each comparison is torch as it always runs, by backends that no export uses; of
ParC the reference operator.
"""

import copy
import functools
import json
import sys
from pathlib import Path

import onnx
import pytest
import torch
from backbones import BACKBONES, build, image_of, in_eval, parc_layers
from backbones import TRANSFORMERS as NETWORKS
from helpers import OLD_TORCH, ROOT, assert_close, relative_error, run_tool
from onnx import TensorProto, helper
from tool_calls import refusal
from torch import nn

from mmparc import engine, export
from mmparc.models import (
    ParCConv,
    ParCMixer,
    ParCMobileViT,
    ParCSwinTransformer,
    ParCVisionTransformer,
)
from mmparc.ops import parc_reference, resize_taps
from mmparc.ops.backends import exported

if OLD_TORCH:
    pytest.skip('exports need torch>=2.6', allow_module_level=True)
from torch.export import Dim  # torch 2.1 has none

CLS = ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py'
SEG = ROOT / 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py'
DET = ROOT / 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py'
TOOL = 'tools/export_onnx.py'
# equal to K, longer, shorter, odd, prime, of one row
LENGTHS = [(9, 14), (14, 9), (33, 50), (7, 2), (13, 17), (1, 1)]


def rolled(model: nn.Module) -> nn.Module:
    """A copy whose kernels begin at another tap: the negative control."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, ParCConv):
            with torch.no_grad():
                module.weight.copy_(module.weight.roll(1, -1))
    return model


# The operator


@pytest.mark.parametrize('n', [1, 2, 7, 9, 14, 50])
def test_resizing_by_a_product(n):
    taps = torch.randn(6, 2, 9, dtype=torch.float64)
    assert_close(exported.resize_taps(taps, n), resize_taps(taps, n, 'interpolate'), 1e-12)
    if n == 9:
        assert torch.equal(exported.resize_taps(taps, n), taps)


@pytest.mark.parametrize('groups', [6, 2, 1])
@pytest.mark.parametrize('axis', ['h', 'w'])
@pytest.mark.parametrize('size', [(13, 17), (1, 4), (9, 1)], ids=str)
def test_the_form_computes_parc(size, axis, groups):
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    n = size[0 if axis == 'h' else 1]
    weight, offset = (torch.randn(s, dtype=torch.float64) for s in ((6, 6 // groups, n), (6, n)))
    operand = exported.prepare(weight, axis, groups)
    y = exported.correlate(
        x, operand, exported.prepare_offset(offset, operand, axis, groups), axis, groups
    )
    expected = parc_reference(x, weight, axis=axis, groups=groups)
    expected = expected + (offset[:, :, None] if axis == 'h' else offset[:, None])
    assert_close(y, expected, 1e-12)


@pytest.mark.parametrize(
    ('resize', 'strict'),
    [
        ('interpolate', False),
        ('interpolate_sum', False),
        pytest.param('interpolate_sum', True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize('dense', [False, True], ids=['depthwise', 'dense'])
def test_any_length_in_one_program(resize, dense, strict):
    """Exported where the lengths are K, of which nothing may be left in the program."""
    mixer = ParCMixer(6, LENGTHS[0], groups=1 if dense else None, resize=resize).double().eval()
    x = torch.randn(2, 6, *LENGTHS[0], dtype=torch.float64)
    dimensions = ({0: Dim('batch'), 2: Dim('height'), 3: Dim('width')},)
    program = torch.export.export(mixer, (x,), dynamic_shapes=dimensions, strict=strict).module()
    wrong = rolled(mixer)
    for batch, size in enumerate(LENGTHS, 1):
        x = torch.randn(batch, 6, *size, dtype=torch.float64)
        assert_close(program(x), mixer(x), 1e-10, f'{size}')
        if size != (1, 1):
            assert relative_error(program(x), wrong(x)) > 1e-2


# Backbones


@pytest.mark.parametrize(
    'family',
    [
        pytest.param(f, marks=[] if f in ('convnext', 'resnet') else pytest.mark.slow)
        for f in BACKBONES
    ],
)
def test_torch_export(family):
    model, image = in_eval(build(family)), image_of((64, 96), dtype=torch.float32)
    program = torch.export.export(model, (image,)).module()
    image = image_of((64, 96), dtype=torch.float32).flip(0)
    with torch.no_grad():
        outputs, expected, wrong = program(image), model(image), rolled(model)(image)
    for a, b in zip(outputs, expected, strict=True):
        assert_close(a, b, 1e-5)
    assert relative_error(outputs[-1], wrong[-1]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('family', [family for family in BACKBONES if family != 'resnet'])
def test_torch_export_of_any_size(family):
    """Multiples of 32, as upstream's pooling asks whether a size is even; from two rows on.

    ResNet18 stands for the deeper ones, which take as long again.
    """
    model, image = in_eval(build(family)), image_of((96, 160), dtype=torch.float32)
    sides = {2: 32 * Dim('rows', min=2), 3: 32 * Dim('columns', min=2)}
    program = torch.export.export(
        model, (image,), dynamic_shapes=({0: Dim('batch', min=1), **sides},)
    ).module()
    for batch, size in ((1, (64, 96)), (3, (224, 224)), (2, (160, 64))):
        image = image_of(size, batch, torch.float32)
        with torch.no_grad():
            for a, b in zip(program(image), model(image), strict=True):
                assert_close(a, b, 1e-5, str(size))


VIT = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
SWIN = dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1])
SHORT_SWIN = dict(embed_dims=16, depths=[1, 1], num_heads=[1, 1])
MOBILEVIT = {k: v for k, v in NETWORKS['mobilevit'].keywords.items() if k != 'img_size'}
# in place of attention, from images to a vector or a map
TRANSFORMERS = {
    'vit': functools.partial(ParCVisionTransformer, VIT),
    'swin': functools.partial(ParCSwinTransformer, SWIN),
    'mobilevit': functools.partial(ParCMobileViT, **MOBILEVIT),
}


@pytest.mark.parametrize('dynamic', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize('kind', TRANSFORMERS)
def test_torch_export_of_transformers(kind, dynamic):
    torch.manual_seed(0)
    model, image = in_eval(TRANSFORMERS[kind]()), image_of((96, 160), dtype=torch.float32)
    sides = {2: 32 * Dim('rows', min=2), 3: 32 * Dim('columns', min=2)}
    sizes = [(96, 160), (160, 64)] if dynamic else [(96, 160)]
    program = torch.export.export(
        model, (image,), dynamic_shapes=(sides,) if dynamic else None
    ).module()
    for size in sizes:
        image = image_of(size, dtype=torch.float32).flip(0)
        with torch.no_grad():
            output, expected, wrong = program(image), model(image), rolled(model)(image)
        assert_close(output[-1], expected[-1], 1e-5, f'{size}')
        assert relative_error(output[-1], wrong[-1]) > 1e-3


# ONNX


@pytest.fixture(scope='module')
def networks():
    """Gives the network of a config, with random weights; made once."""
    made = {}

    def get(config: Path, **options) -> export.Network:
        key = config, *options.items()
        if key not in made:
            torch.manual_seed(0)
            made[key] = export.Network(engine.load_config(str(config)), 'none', **options)
        return made[key]

    return get


def check(network, path, shape, **options):
    """Export and compare; gives the graph, and the dimensions of the first input."""
    proto = export.export_onnx(network, path, shape, **options)
    session, wrong = export.session_of(path), rolled(network)
    multiple = options.get('multiple', 1)
    for checked in export.shapes_to_check(shape, options.get('dynamic', False), multiple):
        errors = export.parity(session, network, checked)
        assert errors and all(error <= 2e-5 for error in errors.values()), (checked, errors)
        assert max(export.parity(session, wrong, checked).values()) > 1e-3
    return proto.graph


def without_images(graph) -> list[str]:
    """The operators that compute from the weights alone."""
    known = {tensor.name for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if known.issuperset(filter(None, node.input)):
            known.update(node.output)
            found.append(node.op_type)
    return found


def test_classifier_of_one_size(networks, tmp_path):
    network = networks(CLS)
    assert {layer.backend for layer in parc_layers(network).values()} == {'auto'}
    graph = check(network, tmp_path / 'a.onnx', (2, 3, 64, 96))
    assert without_images(graph) == []
    assert [output.name for output in graph.output] == ['logits']
    # a depthwise ParC is two products and what is added; nothing moves the map
    assert 'Gather' not in {node.op_type for node in graph.node}


@pytest.mark.slow
def test_segmentor_of_any_size(networks, tmp_path):
    graph = check(networks(SEG), tmp_path / 'a.onnx', (1, 3, 128, 160), dynamic=True)
    names = [d.dim_param for d in graph.input[0].type.tensor_type.shape.dim]
    assert names == ['batch', '', 'height', 'width']


@pytest.mark.slow
def test_detector_through_its_neck(networks, tmp_path):
    """Of multiples of 32."""
    network = networks(DET)
    multiple = export.size_multiple(engine.load_config(str(DET)))
    assert multiple == 32
    graph = check(network, tmp_path / 'a.onnx', (1, 3, 128, 160), dynamic=True, multiple=multiple)
    assert [output.name for output in graph.output] == ['feat0']


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['vit', 'swin'])
def test_transformer_of_any_size(kind, tmp_path):
    """Of multiples of 32: both pad images to their patches, for which a file knows one size.

    A Swin of two stages, which is one merging; behind each, sizes take longer to follow.
    """
    config = engine.load_config(str(ROOT / 'configs/cls/swin/parc-swin-t_toy.py'))
    if kind == 'vit':
        config.model.backbone = dict(type='mmparc.ParCVisionTransformer', arch=VIT)
        config.model.neck = None
    else:
        config.model.backbone = dict(
            type='mmparc.ParCSwinTransformer', arch=SHORT_SWIN, out_indices=(1,)
        )
    config.model.head.in_channels = 32
    torch.manual_seed(0)
    network = export.Network(config, 'none')
    check(network, tmp_path / 'a.onnx', (1, 3, 96, 160), dynamic=True, multiple=32)


def test_backbone_alone(networks, tmp_path):
    graph = check(networks(SEG, backbone=True), tmp_path / 'a.onnx', (1, 3, 64, 96))
    assert [output.name for output in graph.output] == ['feat0', 'feat1', 'feat2', 'feat3']


def test_every_random_weight_shows(networks):
    """'none' leaves no scale near 0, at which ParC would hardly show in a comparison."""
    deit = ROOT / 'configs/cls/deit/parc-deit-tiny_4xb256_in1k.py'
    heads = {name for name, _ in networks(deit).named_parameters() if name.startswith('model.head')}
    assert heads  # of which the weights begin as zeros
    for config in (CLS, deit):
        for parameter in networks(config).parameters():
            assert parameter.abs().max() > 1e-2


class Named(nn.Sequential):
    """Layers in a network's place."""

    def names(self, count):
        return ['output']

    def forward(self, images):
        outputs = super().forward(images)
        return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize('dynamic', [False, True], ids=['one size', 'any size'])
@pytest.mark.parametrize('dense', [False, True], ids=['depthwise', 'dense'])
def test_a_layer(dense, dynamic, tmp_path):
    """Whose kernels are resized, of which the file of one size holds the result."""
    layer = Named(ParCMixer(6, (9, 70), groups=1 if dense else None)).eval()
    graph = export.export_onnx(layer, tmp_path / 'a.onnx', (1, 6, 64, 70), dynamic=dynamic).graph
    session = export.session_of(tmp_path / 'a.onnx')
    for shape in [(1, 6, 64, 70), *([(3, 6, 97, 131), (1, 6, 71, 64)] if dynamic else [])]:
        assert export.parity(session, layer, shape)['output'] < 1e-5
        assert export.parity(session, rolled(layer), shape)['output'] > 1e-2
    assert without_images(graph) == []
    assert dynamic == ('Range' in {node.op_type for node in graph.node})


@pytest.mark.parametrize('count', [1, 2, 3, 6])
@pytest.mark.parametrize('size', [(7, 11), (4, 12), (1, 5)], ids=str)
def test_pools_of_any_size(size, count):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    pool = nn.AdaptiveAvgPool2d((count, 2))
    assert_close(export._DynamicPool((count, 2))(x), pool(x), 1e-12)


class Spectrum(nn.Module):
    def forward(self, x):
        return (torch.view_as_real(torch.fft.rfft(x)),)


def test_fourier_transforms_are_refused(tmp_path):
    with pytest.raises(engine.UserError, match='computes with DFT'):
        export.export_onnx(Named(Spectrum()), tmp_path / 'a.onnx', (1, 4, 9, 5))
    conv = ParCConv(4, 4, 9, 'h', groups=4, backend='fft').eval()
    # torch's exporter stops at its complex product
    with pytest.raises(engine.UserError, match='torch cannot export'):
        export.export_onnx(Named(conv), tmp_path / 'a.onnx', (1, 4, 9, 5))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('inner', [False, True])
def test_fourier_transforms_are_found_inside(inner):
    x = helper.make_tensor_value_info('x', TensorProto.FLOAT, [1])
    node = helper.make_node('DFT', ['x'], ['y'])
    if inner:
        graph = helper.make_graph([node], 'then', [], [x])
        node = helper.make_node('If', ['c'], ['y'], then_branch=graph, else_branch=graph)
    with pytest.raises(engine.UserError, match='DFT'):
        export.check_operators(helper.make_model(helper.make_graph([node], 'all', [x], [x])))
    relu = helper.make_node('Relu', ['x'], ['y'])
    export.check_operators(helper.make_model(helper.make_graph([relu], 'all', [x], [x])))


def test_what_torch_cannot_export_is_one_line(tmp_path):
    class Asks(nn.Module):
        def forward(self, x):
            return (x if x.sum() > 0 else -x,)

    with pytest.raises(engine.UserError, match='torch cannot export this model: ') as raised:
        export.export_onnx(Named(Asks()), tmp_path / 'a.onnx', (1, 3, 4, 5))
    assert '\n' not in str(raised.value)


def test_a_network_that_cannot_run_is_one_line(tmp_path):
    class Refuses(nn.Module):
        def forward(self, x):
            raise AssertionError('too small\nand more')

    network = Named(Refuses())
    with pytest.raises(engine.UserError, match=r'torch cannot export this model: .*too small$'):
        export.export_onnx(network, tmp_path / 'a.onnx', (1, 3, 4, 5))
    with pytest.raises(engine.UserError, match=r'images of 1 x 3 x 4 x 5: .*too small$'):
        export.parity(None, network, (1, 3, 4, 5))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(engine.UserError, match=r"onnxruntime.*pip install 'mmparc\[onnx\]'"):
        export.require_packages()


def test_shapes_that_are_checked():
    assert export.shapes_to_check((1, 3, 97, 131), False, 1) == [(1, 3, 97, 131)]
    for multiple in (1, 32):
        shapes = export.shapes_to_check((1, 3, 128, 160), True, multiple)
        sides = [shape[2:] for shape in shapes]
        assert len(set(sides)) == 5 and {shape[0] for shape in shapes} == {1, 2}
        assert all(side % multiple == 0 and side >= 64 for pair in sides for side in pair)
        assert any(h > w for h, w in sides) and any(h < w for h, w in sides)
        assert multiple > 1 or any(h % 2 and w % 2 for h, w in sides)


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_plain_twins(task):
    leaves = [p for p in ROOT.glob(f'configs/{task}/*/*.py') if 'parc' in p.name]
    assert leaves
    for leaf in leaves:
        twin = export.plain_twin(leaf)
        assert twin is not None and twin.is_file() and 'parc' not in twin.name, leaf
    plain = [p for p in ROOT.glob(f'configs/{task}/convnext/*.py') if 'parc' not in p.name]
    assert plain and {export.plain_twin(p) for p in plain} == {None}


def test_a_base_with_parc_is_no_plain_twin(tmp_path):
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = '{CLS}'\n")
    assert export.plain_twin(mine) is None


# The tool


@pytest.mark.slow
def test_tool(networks, tmp_path):
    """A checkpoint, in a folder that is made for it, beside the twin."""
    checkpoint, out = tmp_path / 'a.pth', tmp_path / 'new/a.onnx'
    network = networks(CLS)
    torch.save(dict(state_dict=network.model.state_dict()), checkpoint)
    options = ['--shape', 64, 96, '--seconds', 0]
    result = run_tool(TOOL, CLS, checkpoint, out, *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for text in ('1 x 3 x 64 x 96', CLS.stem, 'convnext-micro_toy, plain', 'ratio', 'written: '):
        assert text in result.stdout
    assert sorted(tmp_path.rglob('*.*')) == [checkpoint, out]
    said = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert said['config'] == str(CLS) and said['checkpoint'] == str(checkpoint)
    assert json.loads(said['mean']) == [123.675, 116.28, 103.53]
    assert said['channels'] == 'RGB' and 'before softmax' in said['outputs']
    # the checkpoint's values, not others
    session = export.session_of(out)
    assert max(export.parity(session, network, (1, 3, 64, 96)).values()) < 1e-5
    torch.manual_seed(1)
    other = export.Network(engine.load_config(str(CLS)), 'none')
    assert max(export.parity(session, other, (1, 3, 64, 96)).values()) > 1e-2


@pytest.mark.parametrize(
    'args, cause',
    [
        ([CLS, 'none', 'there.onnx'], "'there.onnx' exists"),
        ([CLS, 'none', 'a.pt'], 'ends with .onnx'),
        ([CLS, 'no.pth', 'a.onnx'], "no checkpoint 'no.pth'"),
        ([CLS, 'there.onnx', 'a.onnx'], "'there.onnx' cannot be read as a checkpoint"),
        ([CLS, 'list.pth', 'a.onnx'], "'list.pth' holds no checkpoint"),
        ([CLS, 'other.pth', 'a.onnx'], 'is no checkpoint of this model'),
        ([CLS, 'none', 'a.onnx', '--dynamic', '--shape', 32, 64], 'starts at 64'),
        ([DET, 'none', 'a.onnx', '--dynamic', '--shape', 100, 128], 'a multiple of 32'),
        ([CLS, 'none', 'a.onnx', '--multiple', 32], '--multiple is for --dynamic'),
        ([CLS, 'none', 'a.onnx', '--batch', 0], 'positive'),
        (['no.py', 'none', 'a.onnx'], "no config 'no.py'"),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_what_the_tool_refuses(args, cause, tmp_path):
    (tmp_path / 'there.onnx').write_text('kept')
    torch.save([1], tmp_path / 'list.pth')
    torch.save(dict(state_dict=dict(a=torch.zeros(1))), tmp_path / 'other.pth')
    shape = [] if '--shape' in args else ['--shape', 64, 64]
    before = sorted(tmp_path.rglob('*'))
    result = run_tool(TOOL, *args, *shape, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, ''), result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ') and cause in line
    assert sorted(tmp_path.rglob('*')) == before
    assert (tmp_path / 'there.onnx').read_text() == 'kept'


@pytest.mark.parametrize('error', [2e-4, float('nan')])
def test_nothing_is_written_where_outputs_differ(error, tmp_path, monkeypatch):
    monkeypatch.setattr('logging.disable', lambda level: None)  # it would last
    monkeypatch.setattr(export, 'export_onnx', lambda *args, **options: None)
    monkeypatch.setattr(export, 'session_of', lambda path: None)
    monkeypatch.setattr(export, 'parity', lambda *args: dict(first=1e-7, second=error))
    args = (CLS, 'none', 'a.onnx', '--shape', 64, 64)
    assert 'differs from torch' in refusal('export_onnx.py', *args, cwd=tmp_path)
    assert not list(tmp_path.iterdir())
