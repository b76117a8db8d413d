"""`mmparc.create_backbone` and `mmparc.list_backbones`."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger

import mmparc
from mmparc.registry import MODELS

# What some names stand for, written out.
CONFIGS = {
    'parc_convnext_xt': dict(type='mmparc.ParCConvNeXt', arch='xtiny'),
    'parc_mobilenet_v2': dict(type='mmparc.ParCMobileNetV2'),
    'parc_resnet50': dict(type='mmparc.ParCResNet', depth=50),
    'parcnet_s': dict(type='mmparc.ParCNet', arch='s'),
}


def test_every_listed_name_builds():
    names = mmparc.list_backbones()
    assert set(CONFIGS) <= set(names) and names == sorted(set(names))
    image = torch.randn(1, 3, 64, 96)
    for name in names:
        backbone = mmparc.create_backbone(name)
        assert any(type(m) is mmparc.ParCConv for m in backbone.modules()), name
        if name in CONFIGS:
            registered = MODELS.build(CONFIGS[name])
            registered.load_state_dict(backbone.state_dict())
            for model in (backbone, registered):
                model.eval()
            with torch.no_grad():
                for actual, expected in zip(backbone(image), registered(image), strict=True):
                    assert torch.equal(actual, expected), name
    assert mmparc.list_backbones('*resnet50') == ['parc_resnet50']
    assert mmparc.list_backbones('*resnet') == []


def test_initial_weights_are_drawn_by_the_backbones_rules(caplog):
    """Without mmengine's line for each parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.addHandler(caplog.handler)
    torch.manual_seed(0)
    try:
        backbone = mmparc.create_backbone('parc_convnext_micro')
    finally:
        logger.removeHandler(caplog.handler)
    assert not [record for record in caplog.records if record.levelno == logging.INFO]
    assert logger.level == level
    torch.manual_seed(0)
    again = mmparc.create_backbone('parc_convnext_micro', backend='direct')
    kernel = backbone.stages[3][0].depthwise_conv.conv_h.weight
    assert 0.018 < kernel.std() < 0.022  # ConvNeXt's truncated normal, not torch's default
    assert torch.equal(kernel, again.stages[3][0].depthwise_conv.conv_h.weight)


def test_misspelt_name_and_argument():
    with pytest.raises(ValueError, match='parc_resnet50') as caught:
        mmparc.create_backbone('parc_resnet5')
    assert len(str(caught.value).splitlines()) == 1
    for name in ('parc_resnet_micro', 'parcnet_micro', 'parc_swin_t', 'parc_deit_t'):
        with pytest.raises(TypeError, match='image_size'):
            mmparc.create_backbone(name, image_size=64)
