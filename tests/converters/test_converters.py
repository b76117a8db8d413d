"""The converter of reference checkpoints: configs, names, errors, and its tool.

That the values end up where they belong is shown by the golden outputs in models/, and here for
the plain parts by torchvision, whose names the published ResNet and MobileNetV2 keep.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from backbones import classifier
from helpers import OLD_TORCH, ROOT, assert_close, error_line, relative_error, run_tool
from mmengine.config import Config

from mmparc.converters import FAMILIES, backbone_config, convert_official, convert_to_official

GOLDEN = {
    'parc_convnext': 'parc_convnext_xt',
    'parc_resnet': 'parc_resnet50',
    'parc_mobilenetv2': 'parc_mobilenetv2',
    'parcnet': 'parcnet_s',
}
each_model = pytest.mark.parametrize('model', GOLDEN)
# The ends of kernels' names, the reference's and ours; in ParC-Net they have no biases.
OFFICIAL_KERNELS = ('gcc_conv.weight', 'meta_kernel_1_H')
KERNELS = ('conv_h.weight', 'half1.conv1.weight')


def reference(model):
    """A state dict with the reference's names and shapes; the values are not to be looked at."""
    path = ROOT / 'tests' / 'data' / 'golden' / f'{GOLDEN[model]}.json'
    return {name: torch.empty(shape) for name, shape in json.loads(path.read_text())['state_dict']}


CONFIGS = {
    'parc_convnext': dict(
        type='mmparc.ParCConvNeXt',
        arch=dict(depths=[1, 2, 3, 2], channels=[8, 12, 16, 24]),
        parc_starts=(0, 1, 3, 2),
        img_size=(192, 320),
    ),
    'parc_resnet': dict(type='mmparc.ParCResNet', depth=18, parc_starts=(2, 2, 1, 1), img_size=240),
    'parc_mobilenetv2': dict(
        type='mmparc.ParCMobileNetV2', widen_factor=0.5, parc_starts=(1, 1, 2, 1, 0, 1, 0)
    ),
    'parcnet': dict(
        type='mmparc.ParCNet',
        arch=dict(
            stem_kernel=5,
            stem_channels=8,
            channels=[8, 16, 24, 32, 40],
            inner_channels=[16, 32, 48],
            depths=[2, 1, 3],
            ffn_channels=[24, 40, 56],
            fusion='concat',
        ),
        img_size=(320, 192),
    ),
}
WIDTHS = {'parc_convnext': 24, 'parc_resnet': 512, 'parc_mobilenetv2': 1280, 'parcnet': 160}


@each_model
def test_there_and_back_with_the_same_config(model):
    """With other depths, widths, places and sizes than the published ones; those are golden."""
    ours = classifier(CONFIGS[model], WIDTHS[model])
    for value in ours.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.0)
    state = ours.state_dict()
    official = convert_to_official(state, model)
    assert backbone_config(official, model) == dict(dict(img_size=224), **CONFIGS[model])
    assert not any(name.startswith(('backbone.', 'head.fc')) for name in official)
    back = convert_official(official, model)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_plain_networks_of_torchvision():
    for make, model, settings in (
        ('resnet18', 'parc_resnet', dict(depth=18, parc_starts=(2, 2, 2, 2))),
        ('resnet50', 'parc_resnet', dict(depth=50, parc_starts=(3, 4, 6, 3))),
        ('mobilenet_v2', 'parc_mobilenetv2', dict(widen_factor=1.0)),
    ):
        source = getattr(torchvision.models, make)(num_classes=7)
        for m in source.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.momentum = None  # the statistics of one batch, so that the signal gets through
        source(torch.randn(4, 3, 97, 131))
        source.eval().double()
        config = backbone_config(source.state_dict(), model)
        assert config == {**config, **settings} and 'img_size' not in config
        random = torch.get_rng_state()
        state = convert_official(source.state_dict(), model)
        assert torch.equal(random, torch.get_rng_state()), 'random numbers are left alone'
        ours = classifier(config, state['head.fc.weight'].shape[1], 7).double()
        ours.load_state_dict(state, strict=True)
        ours.eval()
        image = torch.randn(2, 3, 97, 131, dtype=torch.float64)
        with torch.no_grad():
            assert_close(ours(image), source(image), 1e-10)
            next(source.parameters()).mul_(1.01)
            assert relative_error(ours(image), source(image)) > 1e-5, 'control'


# Errors


def error_in(convert: Callable[..., dict], state: dict, model: str) -> str:
    with pytest.raises(ValueError, match=r'^[^\n]+$') as error:
        convert(state, model)
    return str(error.value)


@each_model
def test_missing_and_left_over_keys_are_named(model):
    full = reference(model)
    for convert, state, kernels in (
        (convert_official, full, OFFICIAL_KERNELS),
        (convert_to_official, convert_official(full, model), KERNELS),
    ):
        gone = next(name for name in state if name.endswith(kernels))
        less = {name: value for name, value in state.items() if name != gone}
        aux = {'aux.weight': torch.zeros(2)}
        assert error_in(convert, less, model).endswith(f'1 of its keys: {gone}')
        assert error_in(convert, state | aux, model).endswith('1 of its keys: aux.weight')
        both = error_in(convert, less | aux, model)
        assert gone in both and 'aux.weight' in both

    # One tensor of each module, also those that the config is read from; second copies need not
    # be there.
    parts = {n.rpartition('.')[0]: n for n in full if not n.startswith('residual.')}
    for name in list(parts.values())[:: 7 if model == 'parc_convnext' else 19]:
        less = {k: v for k, v in full.items() if k != name}
        assert name in error_in(convert_official, less, model)


def test_a_wrong_shape_is_named():
    parcnet = 'layer_3.1.spatial_global_rep.0.meta_kernel_1_H'
    for model, name, shape in (
        ('parc_resnet', 'layer3.4.parc_H.pe', (1, 128, 1, 14)),  # the other axis
        ('parc_resnet', 'layer1.0.conv1.weight', (64, 64)),
        ('parcnet', parcnet, (96, 32)),
        ('parcnet', 'layer_5.1.spatial_global_rep.0.meta_pe_2_H', (1, 160, 1, 8)),
    ):
        said = error_in(convert_official, {**reference(model), name: torch.empty(shape)}, model)
        assert name in said and str(shape) in said


def test_wrong_models():
    state = reference('parc_resnet')
    for convert in (convert_official, convert_to_official, backbone_config):
        assert "'parc_resnet'" in error_in(convert, state, 'resnet')
    for model in FAMILIES:
        if model != 'parc_resnet':
            assert model in error_in(convert_official, state, model)
    assert "'fc.weight'" in error_in(convert_official, dict(model=state), 'parc_resnet')

    # A missing kernel does not make a unit of ParC-Net shallower: its blocks count by their index.
    less = reference('parcnet')
    del less[gone := 'layer_3.1.spatial_global_rep.1.meta_kernel_1_H']
    assert error_in(convert_official, less, 'parcnet').endswith(f'1 of its keys: {gone}')

    deeper = state | {'layer1.3.conv1.weight': torch.empty(64, 256, 1, 1)}
    assert '(4, 4, 6, 3)' in error_in(convert_official, deeper, 'parc_resnet')

    config = dict(type='mmparc.ParCMobileNetV2', parc_starts=(0, 2, 3, 4, 3, 3, 1))
    ours = classifier(config, 1280).state_dict()  # ParC in a block that does not expand
    assert 'layer1.0' in error_in(convert_to_official, ours, 'parc_mobilenetv2')


def test_copied_keys_are_dropped_and_written_again():
    """ParC-Net's state dict holds a block twice; what its copy says does not matter."""
    full = {name: torch.randn(value.shape) for name, value in reference('parcnet').items()}
    state = {name: value for name, value in full.items() if not name.startswith('residual.')}
    assert len(full) - len(state) == 18
    back = convert_to_official(convert_official(full, 'parcnet'), 'parcnet')
    assert back.keys() == full.keys()
    for name, value in back.items():
        assert torch.equal(value, full[name.replace('residual.', 'layer_5.0.')]), name
    converted = convert_official(state, 'parcnet')  # the copy need not be there
    assert converted.keys() == convert_official(full, 'parcnet').keys()
    extra = {**full, 'residual.extra': torch.zeros(1)}
    assert error_in(convert_official, extra, 'parcnet').endswith('residual.extra')


# The tool


class Unsafe:
    """Something that only unsafe loading would rebuild."""


def convert(*args: object, cwd: Path) -> str:
    result = run_tool('tools/convert_official.py', *args, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_tool(tmp_path: Path) -> None:
    """A checkpoint as a training script writes it, there and back."""
    model, path = 'parc_mobilenetv2', tmp_path / 'reference.pth'
    state = {name: torch.randn(v.shape) for name, v in reference(model).items()}
    ema = {name: value + 1 for name, value in state.items()}
    torch.save(dict(model=state, epoch=3, args=argparse.Namespace(lr=0.1)), path)
    torch.save(dict(model=state, model_ema=ema), tmp_path / 'both.pth')
    said = convert(model, path, 'ours.pth', cwd=tmp_path)
    ours = torch.load(tmp_path / 'ours.pth', weights_only=True)
    # the printed config builds the backbone that takes the weights
    line = next(line for line in said.splitlines() if line.startswith('backbone='))
    config = Config.fromstring(line, '.py').backbone.to_dict()
    assert config == ours['meta']['backbone']
    classifier(config, 1280, 1000).load_state_dict(ours['state_dict'], strict=True)

    convert(model, 'ours.pth', 'back.pth', '--to-official', cwd=tmp_path)
    back = torch.load(tmp_path / 'back.pth', weights_only=True)['state_dict']
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())

    convert(model, 'both.pth', 'ema.pth', '--key', 'model_ema', cwd=tmp_path)
    converted = torch.load(tmp_path / 'ema.pth', weights_only=True)['state_dict']
    assert torch.equal(converted['head.fc.bias'], ema['classifier.1.bias'])

    # errors
    (tmp_path / 'there.pth').write_text('mine')
    (tmp_path / 'text.pth').write_text('no checkpoint')
    torch.save([1, 2], tmp_path / 'list.pth')
    torch.save(dict(model={}, args=Unsafe()), tmp_path / 'unsafe.pth')
    for args, named in (
        ((model, path, 'there.pth'), 'there.pth'),
        ((model, path, 'no/out.pth'), "'no'"),
        ((model, 'no.pth', 'out.pth'), 'no.pth'),
        ((model, 'text.pth', 'out.pth'), 'text.pth'),
        ((model, 'list.pth', 'out.pth'), 'list'),
        *([] if OLD_TORCH else [((model, 'unsafe.pth', 'out.pth'), 'Unsafe')]),
        ((model, 'both.pth', 'out.pth'), '--key'),
        ((model, 'both.pth', 'out.pth', '--key', 'best'), "'best'"),
        (('parc_resnet', path, 'out.pth'), 'fc.weight'),
    ):
        assert named in error_line('tools/convert_official.py', *args, cwd=tmp_path)
    assert (tmp_path / 'there.pth').read_text() == 'mine'
