"""Checkpoints of other lengths and other models: what is resized, what is counted, what raises."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import assert_close
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_checkpoint
from mmpretrain.registry import MODELS

from mmparc import engine
from mmparc.layers import ParCConv
from mmparc.ops import resize_taps

ARCH = dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32])
KERNEL = 'backbone.stages.2.1.depthwise_conv.conv_h.weight'


def classifier(img_size, num_classes=5, **backbone):
    init_default_scope('mmpretrain')
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='mmparc.ParCConvNeXt', arch=ARCH, img_size=img_size, **backbone),
        head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=32),
    )
    return MODELS.build(model)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = classifier(224)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    path = tmp_path / 'saved.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return model, str(path)


@pytest.fixture
def save(checkpoint, tmp_path) -> Callable[[dict], str]:
    """Writes the checkpoint's weights as something else."""

    def write(change: Callable[[dict], dict]) -> str:
        path = Path(tmp_path, 'changed.pth')
        torch.save(change(torch.load(checkpoint[1])['state_dict']), path)
        return str(path)

    return write


@pytest.fixture
def log():
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def refused(check: Callable, *args) -> str:
    """The one line that a check raises."""
    with pytest.raises(engine.UserError, match=r'^[^\n]+$') as error:
        check(*args)
    return str(error.value)


# What is resized


@pytest.mark.parametrize('resize', ['interpolate', 'interpolate_sum'])
def test_other_lengths_are_resized(checkpoint, log, resize):
    saved, path = checkpoint
    for how in ('torch', 'mmengine', 'init_cfg'):
        model = classifier((320, 192), resize=resize)
        log.clear()
        if how == 'torch':
            model.load_state_dict(torch.load(path, weights_only=True)['state_dict'])
        elif how == 'mmengine':
            load_checkpoint(model, path, logger='current')
        else:
            init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
            model = classifier((320, 192), resize=resize, init_cfg=init_cfg)
            model.init_weights()
        assert sum('resized' in line and '14 to 20' in line for line in log) == 2
        state = saved.backbone.state_dict()
        resized = 0
        for name, value in model.backbone.state_dict().items():
            expected = state[name]
            if value.shape != expected.shape:
                resized += 1
                rule = 'interpolate' if name.endswith('pos_embed') else resize
                # The rule is independent of the layer: torch's own linear interpolation.
                expected = torch.nn.functional.interpolate(
                    expected.flatten(0, -2)[None],
                    value.shape[-1],
                    mode='linear',
                    align_corners=True,
                ).view(value.shape)
                if rule == 'interpolate_sum':
                    expected = expected * state[name].shape[-1] / value.shape[-1]
            assert_close(value, expected, 1e-6)
        assert resized == 8  # two blocks, two axes, kernel and embedding


def test_same_lengths_are_left_alone(checkpoint):
    saved, path = checkpoint
    model = classifier(224)
    load_checkpoint(model, path, strict=True)
    pairs = zip(model.parameters(), saved.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_layer_resizes_a_copy_and_its_last_axis_only():
    saved = ParCConv(4, 4, 7, 'h', groups=4).state_dict()
    before = {name: value.clone() for name, value in saved.items()}
    conv = ParCConv(4, 4, 9, 'h', groups=4)
    conv.load_state_dict(saved)
    assert all(torch.equal(saved[name], value) for name, value in before.items())
    assert torch.equal(conv.weight, resize_taps(saved['weight'], 9, 'interpolate'))
    assert not torch.equal(conv.weight[..., :7], saved['weight'])
    for other in (ParCConv(6, 6, 7, 'h', groups=6), ParCConv(4, 4, 7, 'h', groups=1)):
        for strict in (True, False):
            with pytest.raises(ValueError, match=r'weight'):
                other.load_state_dict(saved, strict=strict)


# The share that fits


def test_share_of_a_checkpoint(checkpoint, save, log):
    _, path = checkpoint
    engine.check_loaded_share(classifier((320, 192)), path, 1.0)
    assert f'100.0% of {path}' in log[-1], 'what is resized fits, and nothing is missing'

    # Another head: what does not fit is named, and counts by its size.
    model = classifier(224, num_classes=7)
    share = 1 - 33 * 5 / sum(p.numel() for p in classifier(224).state_dict().values())
    engine.check_loaded_share(model, path, 0.5)
    for message in log[-2:]:  # left out, and random
        assert 'head.fc.weight, head.fc.bias' in message
    assert log[-2].startswith(f'{share:.1%} of')
    said = refused(engine.check_loaded_share, model, path, share + 0.001)
    assert '--min-loaded' in said and 'head.fc.weight' in said

    # Other names: nothing fits.
    renamed = save(lambda weights: {f'x.{k}': v for k, v in weights.items()})
    assert ' 0.0% of' in refused(engine.check_loaded_share, classifier(224), renamed, 0.1)

    # A plain network's weights fill all but the mixers of its ParC twin.
    plain = save(lambda weights: {k: v for k, v in weights.items() if 'conv_h' not in k})
    engine.check_loaded_share(classifier(224), plain, 1.0)
    assert KERNEL in log[-1] and '100.0%' in log[-2]


def test_share_of_pretrained_backbones(checkpoint, save, log):
    _, path = checkpoint
    rule = dict(type='Pretrained', checkpoint=path, prefix='backbone')
    engine.check_loaded_share(classifier(224, init_cfg=rule), None, 1.0)
    assert f'100.0% of {path} is loaded into backbone' in log[-1]
    wrong = classifier(224, init_cfg=dict(rule, prefix='encoder.'))
    assert ' 0.0% of' in refused(engine.check_loaded_share, wrong, None, 0.1)
    model = classifier(224)
    log.clear()
    engine.check_loaded_share(model, None, 1.0)
    assert not log

    # DataParallel's prefix is dropped for a whole model, but not before another prefix.
    change = dict(state_dict={f'module.{k}': v for k, v in torch.load(path)['state_dict'].items()})
    wrapped = save(lambda weights: change)
    engine.check_loaded_share(classifier(224), wrapped, 1.0)
    model = classifier(224, init_cfg=dict(rule, checkpoint=wrapped))
    assert ' 0.0% of' in refused(engine.check_loaded_share, model, None, 0.1)
    with pytest.raises(AssertionError, match='not in the pretrained model'):  # as in mmengine
        model.init_weights()

    # A backbone that converts names is not judged by them.
    model = classifier(224, init_cfg=dict(type='Pretrained', checkpoint='none.pth'))
    model.backbone.convert_weights = True
    engine.check_loaded_share(model, None, 1.0)
    assert 'none.pth' in log[-1]


def test_a_checkpoint_of_the_authors_names_the_converter(save):
    path = save(lambda weights: dict(model=weights, epoch=3))
    assert 'convert_official' in refused(engine.check_loaded_share, classifier(224), path, 0.0)


# Whole models


def test_only_a_whole_model_is_tested(checkpoint, save, log):
    saved, path = checkpoint
    model = classifier(320)
    engine.check_whole_model(model, path)
    assert torch.equal(model.head.fc.weight, saved.head.fc.weight)
    assert 'head.fc' in refused(engine.check_whole_model, classifier(224, num_classes=7), path)

    block = 'backbone.stages.2.9.gamma'
    changes = {
        KERNEL: lambda weights: {k: v for k, v in weights.items() if k != KERNEL},
        'conv_h.weight': lambda weights: {**weights, KERNEL: weights[KERNEL][:4]},
        block: lambda weights: {**weights, block: torch.ones(2)},  # a deeper model's
    }
    for name, change in changes.items():
        assert name in refused(engine.check_whole_model, classifier(224), save(change))
    more = save(lambda weights: {**weights, 'aux.fc.weight': torch.ones(2)})
    engine.check_whole_model(classifier(224), more)
    assert 'aux.fc.weight' in log[-1], 'a head that is only trained is left out'
