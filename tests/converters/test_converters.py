"""The converter of reference checkpoints: configs, names, errors, and its tool.

That the values end up where they belong is shown by the golden outputs in models/, and here for
the plain parts by torchvision, whose names the published ResNet and MobileNetV2 keep.
"""

import argparse
import json
from pathlib import Path

import pytest
import torch
import torchvision
from backbones import classifier
from helpers import OLD_TORCH, ROOT, assert_close, relative_error, run_tool
from mmengine.config import Config

from mmparc.converters import FAMILIES, backbone_config, convert_official, convert_to_official
from mmparc.converters.parcnet import COPIES

GOLDEN = {
    'parc_convnext': 'parc_convnext_xt',
    'parc_resnet': 'parc_resnet50',
    'parc_mobilenetv2': 'parc_mobilenetv2',
    'parcnet': 'parcnet_s',
}
TOOL = 'tools/convert_official.py'
each_model = pytest.mark.parametrize('model', GOLDEN)
# The ends of kernels' names, the reference's and ours; in ParC-Net they have no biases.
OFFICIAL_KERNELS = ('gcc_conv.weight', 'meta_kernel_1_H')
KERNELS = ('conv_h.weight', 'half1.conv1.weight')


def reference(model):
    """A state dict with the reference's names and shapes; the values are not to be looked at."""
    path = ROOT / 'tests' / 'data' / 'golden' / f'{GOLDEN[model]}.json'
    return {name: torch.empty(shape) for name, shape in json.loads(path.read_text())['state_dict']}


def randomized(model):
    model.eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.0)
    return model


# Configs


CONFIGS = [
    ('parc_convnext', 768, dict(arch='tiny', parc_starts=(3, 3, 6, 2), img_size=224)),
    ('parc_convnext', 768, dict(arch='small', parc_starts=(3, 3, 18, 2), img_size=(192, 320))),
    (
        'parc_convnext',
        24,
        dict(
            arch=dict(depths=[1, 2, 3, 2], channels=[8, 12, 16, 24]),
            parc_starts=(0, 1, 3, 2),
            img_size=96,
        ),
    ),
    ('parc_resnet', 512, dict(depth=18, parc_starts=(2, 2, 1, 1), img_size=224)),
    ('parc_resnet', 512, dict(depth=34, parc_starts=(3, 4, 3, 2), img_size=240)),
    ('parc_resnet', 2048, dict(depth=101, parc_starts=(3, 4, 11, 2), img_size=256)),
    ('parc_mobilenetv2', 1280, dict(widen_factor=0.35, parc_starts=(1, 2, 3, 2, 2, 2, 1))),
    ('parc_mobilenetv2', 1280, dict(widen_factor=0.5, parc_starts=(1, 1, 2, 1, 0, 1, 0))),
    ('parc_mobilenetv2', 1792, dict(widen_factor=1.4, parc_starts=(1, 2, 3, 4, 3, 2, 1))),
    ('parcnet', 640, dict(arch='xs', img_size=(192, 320))),
    ('parcnet', 640, dict(arch='s', img_size=(320, 192))),
    (
        'parcnet',
        160,
        dict(
            arch=dict(
                stem_kernel=5,
                stem_channels=8,
                channels=[8, 16, 24, 32, 40],
                inner_channels=[16, 32, 48],
                depths=[2, 1, 3],
                ffn_channels=[24, 40, 56],
                fusion='concat',
            ),
            img_size=64,
        ),
    ),
]


@pytest.mark.parametrize(('model', 'channels', 'settings'), CONFIGS, ids=str)
def test_there_and_back_with_the_same_config(model, channels, settings):
    """Also other depths, widths, places and sizes than the published ones."""
    kind = {
        'parc_convnext': 'ParCConvNeXt',
        'parc_resnet': 'ParCResNet',
        'parc_mobilenetv2': 'ParCMobileNetV2',
        'parcnet': 'ParCNet',
    }[model]
    config = dict(type=f'mmparc.{kind}', **settings)
    state = randomized(classifier(config, channels)).state_dict()
    official = convert_to_official(state, model)
    assert backbone_config(official, model) == dict(dict(img_size=224), **config)
    assert not any(name.startswith(('backbone.', 'head.fc')) for name in official)
    back = convert_official(official, model)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    ('make', 'model', 'settings'),
    [
        ('resnet18', 'parc_resnet', dict(depth=18, parc_starts=(2, 2, 2, 2))),
        ('resnet50', 'parc_resnet', dict(depth=50, parc_starts=(3, 4, 6, 3))),
        ('mobilenet_v2', 'parc_mobilenetv2', dict(widen_factor=1.0)),
    ],
)
def test_plain_networks_of_torchvision(make, model, settings):
    source = getattr(torchvision.models, make)(num_classes=7)
    for m in source.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.momentum = None  # the statistics of one batch, so that the signal gets through
    source(torch.randn(4, 3, 97, 131))
    source.eval()
    source.double()
    config = backbone_config(source.state_dict(), model)
    assert config == {**config, **settings} and 'img_size' not in config
    state = convert_official(source.state_dict(), model)
    ours = classifier(config, state['head.fc.weight'].shape[1], 7).double()
    ours.load_state_dict(state, strict=True)
    ours.eval()
    image = torch.randn(2, 3, 97, 131, dtype=torch.float64)
    with torch.no_grad():
        assert_close(ours(image), source(image), 1e-10)
        # negative control
        next(source.parameters()).mul_(1.01)
        assert relative_error(ours(image), source(image)) > 1e-5


def test_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    convert_official(reference('parc_mobilenetv2'), 'parc_mobilenetv2')
    assert torch.equal(torch.rand(3), expected)


# Errors


@each_model
def test_missing_and_left_over_keys_are_named(model):
    state = reference(model)
    gone = next(name for name in state if name.endswith(OFFICIAL_KERNELS))
    del state[gone]
    with pytest.raises(ValueError, match=rf'lacks 1 of its keys: {gone}$'):
        convert_official(state, model)
    state[gone] = torch.empty(reference(model)[gone].shape)
    state['aux.weight'] = torch.zeros(2)
    with pytest.raises(ValueError, match=r'left over 1 of its keys: aux\.weight$'):
        convert_official(state, model)
    del state[gone]
    with pytest.raises(ValueError, match=rf'lacks .*{gone}; it has left over .*aux\.weight'):
        convert_official(state, model)


@each_model
def test_whatever_is_missing_is_named(model):
    """Every key of a model, one at a time: also those that the config is read from."""
    full = reference(model)
    # one tensor of each module, without second copies, which need not be there
    parts = {n.rpartition('.')[0]: n for n in full if not n.startswith(tuple(COPIES))}
    for name in list(parts.values())[:: 3 if model == 'parc_convnext' else 9]:
        with pytest.raises(ValueError, match=name.replace('.', r'\.')):
            convert_official({k: v for k, v in full.items() if k != name}, model)


@each_model
def test_missing_and_left_over_keys_of_ours_are_named(model):
    state = convert_official(reference(model), model)
    gone = next(name for name in state if name.endswith(KERNELS))
    value = state.pop(gone)
    with pytest.raises(ValueError, match=rf'lacks 1 of its keys: {gone}$'):
        convert_to_official(state, model)
    state.update({gone: value, 'neck.conv.weight': torch.zeros(2)})
    with pytest.raises(ValueError, match=r'left over 1 of its keys: neck\.conv\.weight$'):
        convert_to_official(state, model)


def test_many_names_are_counted():
    state = {f'extra{i}': torch.zeros(1) for i in range(20)}
    state.update(reference('parc_mobilenetv2'))
    with pytest.raises(ValueError, match=r'left over 20 .*: extra0, extra1, .*extra12, \.\.\.$'):
        convert_official(state, 'parc_mobilenetv2')


@pytest.mark.parametrize(
    ('model', 'name', 'shape'),
    [
        ('parc_resnet', 'layer3.4.parc_H.pe', (1, 128, 13, 1)),
        ('parc_resnet', 'layer3.4.parc_H.pe', (1, 128, 1, 14)),  # the other axis
        ('parc_resnet', 'layer4.2.parc_W.gcc_conv.weight', (256, 256, 7, 1)),
        ('parc_resnet', 'layer4.2.parc_W.gcc_conv.weight', (256, 1, 1, 7)),
        ('parc_resnet', 'layer1.0.conv1.weight', (64, 64)),
        ('parc_resnet', 'bn1.weight', (32,)),
        ('parcnet', 'layer_3.1.spatial_global_rep.0.meta_kernel_1_H', (96, 32)),
        ('parcnet', 'layer_3.1.spatial_global_rep.0.meta_kernel_1_H', (96, 1, 1, 32)),
        ('parcnet', 'layer_4.1.spatial_global_rep.1.meta_kernel_2_W', (128, 1, 1, 15)),
        ('parcnet', 'layer_5.1.spatial_global_rep.0.meta_pe_2_H', (1, 160, 1, 8)),
    ],
)
def test_a_wrong_shape_is_named(model, name, shape):
    state = reference(model)
    state[name] = torch.empty(shape)
    with pytest.raises(ValueError, match=f"'{name}' is "):
        convert_official(state, model)


def test_wrong_models():
    state = reference('parc_resnet')
    for convert in (convert_official, convert_to_official, backbone_config):
        with pytest.raises(ValueError, match=r"one of .*'parc_resnet'.* got 'resnet'"):
            convert(state, 'resnet')
    for model in FAMILIES:
        if model != 'parc_resnet':
            with pytest.raises(ValueError, match=model):
                convert_official(state, model)
    with pytest.raises(ValueError, match=r"no 'fc\.weight'"):
        convert_official(dict(model=state), 'parc_resnet')


def test_a_missing_kernel_does_not_make_a_unit_shallower():
    """ParC-Net's blocks count by their index."""
    state = reference('parcnet')
    del state[gone := 'layer_3.1.spatial_global_rep.1.meta_kernel_1_H']
    with pytest.raises(ValueError, match=rf'dict lacks 1 of its keys: {gone}$'):
        convert_official(state, 'parcnet')


def test_depths_of_no_resnet():
    state = reference('parc_resnet')
    state['layer1.3.conv1.weight'] = torch.empty(64, 256, 1, 1)
    with pytest.raises(ValueError, match=r'\(4, 4, 6, 3\) blocks'):
        convert_official(state, 'parc_resnet')


def test_parc_without_expansion_has_no_name():
    config = dict(type='mmparc.ParCMobileNetV2', parc_starts=(0, 2, 3, 4, 3, 3, 1))
    with pytest.raises(ValueError, match=r"'layer1\.0'"):
        convert_to_official(classifier(config, 1280).state_dict(), 'parc_mobilenetv2')


def test_copied_keys_are_dropped_and_written_again():
    """ParC-Net's state dict holds a block twice; what its copy says does not matter."""
    full = {name: torch.randn(value.shape) for name, value in reference('parcnet').items()}
    copies = {name for name in full if name.startswith('residual.')}
    state = {name: value for name, value in full.items() if name not in copies}
    assert len(copies) == 18
    plain = convert_official(state, 'parcnet')  # the copy need not be there
    converted = convert_official(full, 'parcnet')
    assert converted.keys() == plain.keys()
    assert all(torch.equal(converted[name], value) for name, value in plain.items())
    back = convert_to_official(converted, 'parcnet')
    assert back.keys() == full.keys()
    for name, value in back.items():
        assert torch.equal(value, full[name.replace('residual.', 'layer_5.0.')]), name
    with pytest.raises(ValueError, match=r'left over 1 .*: residual\.extra$'):
        convert_official({**full, 'residual.extra': torch.zeros(1)}, 'parcnet')


# The tool


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint as a training script writes it."""
    state = {name: torch.randn(v.shape) for name, v in reference('parc_mobilenetv2').items()}
    path = tmp_path / 'reference.pth'
    torch.save(dict(model=state, epoch=3, args=argparse.Namespace(lr=0.1)), path)
    return path


def error_of(*args: object, cwd: Path) -> str:
    before = sorted(cwd.rglob('*'))
    result = run_tool(TOOL, *args, cwd=cwd)
    said = [line for line in result.stdout.splitlines() if not OLD_TORCH or 'CVE-' not in line]
    assert (result.returncode, said) == (1, []), result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ')
    assert sorted(cwd.rglob('*')) == before
    return line


def test_tool_there_and_back(source: Path, tmp_path: Path) -> None:
    result = run_tool(TOOL, 'parc_mobilenetv2', source, 'ours.pth', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    ours = torch.load(tmp_path / 'ours.pth', weights_only=True)
    # the printed config builds the backbone that takes the weights
    line = next(line for line in result.stdout.splitlines() if line.startswith('backbone='))
    config = Config.fromstring(line, '.py').backbone.to_dict()
    assert config == ours['meta']['backbone']
    model = classifier(config, 1280, 1000)
    model.load_state_dict(ours['state_dict'], strict=True)

    back = run_tool(TOOL, 'parc_mobilenetv2', 'ours.pth', 'b.pth', '--to-official', cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    state = torch.load(tmp_path / 'b.pth', weights_only=True)['state_dict']
    expected = torch.load(source, weights_only=False)['model']
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_tool_finds_the_weights(source: Path, tmp_path: Path) -> None:
    state = torch.load(source, weights_only=False)['model']
    ema = {name: value + 1 for name, value in state.items()}
    torch.save(state, tmp_path / 'bare.pth')
    torch.save(dict(model=state, model_ema=ema), tmp_path / 'both.pth')
    convert = ('parc_mobilenetv2', 'both.pth', 'out.pth')
    assert '--key' in error_of(*convert, cwd=tmp_path)
    assert "under 'best'" in error_of(*convert, '--key', 'best', cwd=tmp_path)
    name = 'classifier.1.bias'
    for output, args, expected in (
        ('bare.out', ['bare.pth'], state),
        ('model.out', ['both.pth', '--key', 'model'], state),
        ('ema.out', ['both.pth', '--key', 'model_ema'], ema),
    ):
        file, *options = args
        result = run_tool(TOOL, 'parc_mobilenetv2', file, output, *options, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        converted = torch.load(tmp_path / output, weights_only=True)['state_dict']
        assert torch.equal(converted['head.fc.bias'], expected[name])


class Unsafe:
    """Something that only unsafe loading would rebuild."""


def test_tool_errors_are_one_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / 'there.pth').write_text('mine')
    (tmp_path / 'text.pth').write_text('no checkpoint')
    (tmp_path / 'empty.pth').touch()
    torch.save([1, 2], tmp_path / 'list.pth')
    torch.save(dict(model={}, args=Unsafe()), tmp_path / 'unsafe.pth')
    for model, file, output, said in (
        ('parc_mobilenetv2', source, 'there.pth', "'there.pth' is there already"),
        ('parc_mobilenetv2', source, 'no/out.pth', "no folder 'no'"),
        ('parc_mobilenetv2', 'no.pth', 'out.pth', "no checkpoint 'no.pth'"),
        ('parc_mobilenetv2', 'text.pth', 'out.pth', "'text.pth' cannot be read"),
        ('parc_mobilenetv2', 'empty.pth', 'out.pth', "'empty.pth' cannot be read"),
        ('parc_mobilenetv2', 'list.pth', 'out.pth', 'but a list'),
        ('parc_resnet', source, 'out.pth', "no 'fc.weight'"),
    ):
        assert said in error_of(model, file, output, cwd=tmp_path)
    if not OLD_TORCH:  # which has no safe loading to rely on
        said = error_of('parc_mobilenetv2', 'unsafe.pth', 'out.pth', cwd=tmp_path)
        assert 'more than weights (test_converters.Unsafe)' in said
    assert (tmp_path / 'there.pth').read_text() == 'mine'
