"""Checkpoints of other lengths and other models: what is resized, what is counted, what raises."""

import logging

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
def log():
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.mark.parametrize('resize', ['interpolate', 'interpolate_sum'])
@pytest.mark.parametrize('how', ['torch', 'mmengine', 'init_cfg'])
def test_other_lengths_are_resized(checkpoint, resize, how):
    saved, path = checkpoint
    model = classifier((320, 192), resize=resize)
    if how == 'torch':
        model.load_state_dict(torch.load(path, weights_only=True)['state_dict'])
    elif how == 'mmengine':
        load_checkpoint(model, path)
    else:
        init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
        model = classifier((320, 192), resize=resize, init_cfg=init_cfg)
        model.init_weights()
    state = saved.backbone.state_dict()
    resized = 0
    for name, value in model.backbone.state_dict().items():
        expected = state[name]
        if value.shape != expected.shape:
            resized += 1
            rule = 'interpolate' if name.endswith('pos_embed') else resize
            # The rule is independent of the layer: torch's own linear interpolation.
            expected = torch.nn.functional.interpolate(
                expected.flatten(0, -2)[None], value.shape[-1], mode='linear', align_corners=True
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


def test_the_saved_tensors_stay_as_they_are():
    saved = ParCConv(4, 4, 7, 'h', groups=4).state_dict()
    before = {name: value.clone() for name, value in saved.items()}
    conv = ParCConv(4, 4, 9, 'h', groups=4)
    conv.load_state_dict(saved)
    assert all(torch.equal(saved[name], value) for name, value in before.items())
    assert torch.equal(conv.weight, resize_taps(saved['weight'], 9, 'interpolate'))
    assert not torch.equal(conv.weight[..., :7], saved['weight'])


def test_the_log_says_so(checkpoint, log):
    load_checkpoint(classifier(320), checkpoint[1], logger='current')
    lines = [message for message in log if 'resized' in message]
    assert len(lines) == 8 and 'from 14 to 20 (interpolate)' in lines[0]


def test_other_widths_raise():
    saved = ParCConv(4, 4, 7, 'h', groups=4).state_dict()
    for other in (ParCConv(6, 6, 7, 'h', groups=6), ParCConv(4, 4, 7, 'h', groups=1)):
        with pytest.raises(ValueError, match='only the last axis'):
            other.load_state_dict(saved)
        with pytest.raises(ValueError, match='only the last axis'):
            other.load_state_dict(saved, strict=False)


def test_share_of_a_checkpoint(checkpoint, log, tmp_path):
    _, path = checkpoint
    engine.check_loaded_share(classifier((320, 192)), path, 1.0)
    assert f'100.0% of {path}' in log[-1]

    # Another head: what does not fit is named, and counts by its size.
    model = classifier(224, num_classes=7)
    head = 33 * 5
    share = 1 - head / sum(p.numel() for p in classifier(224).state_dict().values())
    engine.check_loaded_share(model, path, 0.5)
    message, anew = log[-2:]
    assert message.startswith(f'{share:.1%} of') and 'head.fc.weight, head.fc.bias' in message
    assert anew == 'the model: head.fc.weight, head.fc.bias start anew'
    with pytest.raises(engine.UserError, match='--min-loaded'):
        engine.check_loaded_share(model, path, share + 0.001)

    # Other names: nothing fits.
    renamed = tmp_path / 'renamed.pth'
    torch.save({f'x.{k}': v for k, v in torch.load(path)['state_dict'].items()}, renamed)
    with pytest.raises(engine.UserError, match=r'^only 0\.0%'):
        engine.check_loaded_share(model, str(renamed), 0.1)


def test_share_of_pretrained_backbones(checkpoint, log):
    _, path = checkpoint
    rule = dict(type='Pretrained', checkpoint=path, prefix='backbone')
    engine.check_loaded_share(classifier(224, init_cfg=rule), None, 1.0)
    assert f'100.0% of {path} is loaded into backbone' in log[-1]
    with pytest.raises(engine.UserError, match=r'^only 0\.0%[^\n]*$'):
        wrong = dict(rule, prefix='encoder.')
        engine.check_loaded_share(classifier(224, init_cfg=wrong), None, 0.1)
    plain = classifier(224)
    log.clear()
    engine.check_loaded_share(plain, None, 1.0)
    assert not log


def test_what_starts_anew_is_told(checkpoint, log, tmp_path):
    """A plain network's weights fill all but the mixers of its ParC twin."""
    _, path = checkpoint
    plain = tmp_path / 'plain.pth'
    weights = {k: v for k, v in torch.load(path)['state_dict'].items() if 'conv_h' not in k}
    torch.save({'state_dict': weights}, plain)
    engine.check_loaded_share(classifier(224), str(plain), 1.0)
    assert log[-1].startswith('the model: backbone.stages.2.1.depthwise_conv.conv_h.weight, ')
    assert log[-1].endswith('and 2 more start anew')
    larger = classifier(320)
    log.clear()
    engine.check_loaded_share(larger, path, 1.0)
    assert len(log) == 1  # nothing does


def test_no_checkpoint_of_ours(checkpoint, tmp_path):
    """The layout of the authors' code, and of no weights at all."""
    weights = torch.load(checkpoint[1])['state_dict']
    other = tmp_path / 'other.pth'
    torch.save({'model': weights, 'epoch': 3}, other)
    with pytest.raises(engine.UserError, match=r'^[^\n]* `python -m mmparc convert_official`$'):
        engine.check_loaded_share(classifier(224), str(other), 0.0)


def test_prefixes_as_mmengine_reads_them(checkpoint, tmp_path):
    """DataParallel's is dropped for a whole model, but stands before no other prefix."""
    wrapped = tmp_path / 'wrapped.pth'
    weights = torch.load(checkpoint[1])['state_dict']
    torch.save({'state_dict': {f'module.{k}': v for k, v in weights.items()}}, wrapped)
    engine.check_loaded_share(classifier(224), str(wrapped), 1.0)
    rule = dict(type='Pretrained', checkpoint=str(wrapped), prefix='backbone.')
    model = classifier(224, init_cfg=rule)
    with pytest.raises(engine.UserError, match=r'^only 0\.0%'):
        engine.check_loaded_share(model, None, 0.1)
    with pytest.raises(AssertionError, match='not in the pretrained model'):
        model.init_weights()


def test_a_backbone_that_converts_names_is_not_judged_by_them(checkpoint, log):
    model = classifier(224, init_cfg=dict(type='Pretrained', checkpoint='none.pth'))
    model.backbone.convert_weights = True
    engine.check_loaded_share(model, None, 1.0)
    assert log[-1].endswith('not checked')


def test_only_a_whole_model_is_tested(checkpoint, tmp_path):
    saved, path = checkpoint
    model = classifier(320)
    engine.check_whole_model(model, path)
    assert torch.equal(model.head.fc.weight, saved.head.fc.weight)

    partial = tmp_path / 'partial.pth'
    weights = torch.load(path)['state_dict']
    kernel = 'backbone.stages.2.1.depthwise_conv.conv_h.weight'
    torch.save({'state_dict': {k: v for k, v in weights.items() if k != kernel}}, partial)
    with pytest.raises(engine.UserError, match=rf'^[^\n]*lacks {kernel};[^\n]*$'):
        engine.check_whole_model(classifier(224), str(partial))
    with pytest.raises(engine.UserError, match=r'^[^\n]*size mismatch for head\.fc[^\n]*$'):
        engine.check_whole_model(classifier(224, num_classes=7), path)
    weights[kernel] = weights[kernel][:4]
    torch.save({'state_dict': weights}, partial)
    with pytest.raises(engine.UserError, match=r'^[^\n]*only the last axis[^\n]*$'):
        engine.check_whole_model(classifier(224), str(partial))


def test_what_a_checkpoint_has_besides_the_model(checkpoint, log, tmp_path):
    """A part that the model lacks is named in a warning; a block more is another model's."""
    _, path = checkpoint
    weights = torch.load(path)['state_dict']
    more = tmp_path / 'more.pth'
    torch.save({'state_dict': dict(weights, **{'aux.fc.weight': torch.ones(2)})}, more)
    engine.check_whole_model(classifier(224), str(more))
    assert 'holds more than this model' in log[-1] and 'aux.fc.weight' in log[-1]
    block = 'backbone.stages.2.9.gamma'
    torch.save({'state_dict': dict(weights, **{block: torch.ones(2)})}, more)
    with pytest.raises(engine.UserError, match=rf'^[^\n]*also has {block};[^\n]*$'):
        engine.check_whole_model(classifier(224), str(more))
