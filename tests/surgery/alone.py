"""parcify where there is no OpenMMLab: python alone.py timm|torchvision few|all.

A script for :mod:`test_torch_alone`; it ends with an error where anything is wrong.
"""

import importlib
import logging
import sys

import torch

import mmparc

PACKAGE, AMOUNT = sys.argv[1:]
library = importlib.import_module(PACKAGE)
models = importlib.import_module(f'{PACKAGE}.models')
torch.set_num_threads(1)


def check(build, **options):
    """Exchange in a network for 1000 classes that takes images of 224 x 224."""
    torch.manual_seed(0)
    network, image = build().eval(), torch.randn(1, 3, 224, 224)
    for parameter in network.parameters():  # a norm or a head that starts at 0 hides what is before
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        plain = network(image)
        assert torch.equal(network(image), plain)
        network = mmparc.parcify(network, **options)
        assert not torch.equal(network(image), plain)  # negative control: it is another one
    after = network.state_dict()
    new = {name for name in after if name not in before}
    gone = {name for name in before if name not in after}
    assert new and gone and all(torch.equal(after[n], before[n]) for n in after if n in before)
    if 'replace' not in options:  # all that goes is what stood where a mixer is
        places = {name.partition('.conv_h')[0] for name in new if '.conv_h' in name}
        assert {name.rpartition('.')[0] for name in gone} == places
    network.train()
    for size in ((97, 131), (200, 72)):
        network.zero_grad()
        output = network(torch.randn(2, 3, *size))
        assert output.shape == (2, 1000) and output.isfinite().all()
        (output * torch.randn(2, 1000)).sum().backward()
        assert all(p.grad is not None for p in network.parameters())
    print(type(network).__name__, *options.values(), len(new))


def check_refused(network, **options):
    try:
        mmparc.parcify(network, **options)
    except ValueError as error:
        assert '\n' not in str(error) and type(network).__name__ in str(error), error
        return
    raise AssertionError(f'{type(network).__name__} is not refused')


def timm(name, **options):
    return lambda: library.create_model(name, **options)


def torchvision_vit():
    return models.VisionTransformer(224, 16, 2, 3, 192, 384)


def timm_few():
    check(timm('resnet50'))
    check(timm('deit_tiny_distilled_patch16_224', depth=2), replace='attention')


def timm_all():
    timm_few()
    check(timm('convnext_atto'))
    check(timm('efficientnet_b0'), stages=[3, 5], share=0.5, img_size=(192, 320))
    for options in ({}, dict(channel_attention=True), dict(img_size=(160, 320))):
        check(timm('vit_tiny_patch16_224', depth=4), replace='attention', **options)
        check(timm('swin_tiny_patch4_window7_224'), replace='attention', **options)
    for name in ('deit_tiny_patch16_224', 'deit3_small_patch16_224', 'vit_tiny_r_s16_p8_224'):
        check(timm(name, depth=2), replace='attention')
    registers = timm('vit_small_patch14_reg4_dinov2', depth=2, img_size=224, num_classes=1000)
    check(registers, replace='attention')
    for name in ('eva02_tiny_patch14_224', 'resnet18', 'vit_base_patch16_siglip_224'):
        check_refused(timm(name)(), replace='attention')

    # What else timm does with its networks.
    network = timm('swin_tiny_patch4_window7_224', features_only=True)()
    maps = mmparc.parcify(network, replace='attention')(torch.randn(1, 3, 97, 131))
    assert [tuple(m.shape[1:3]) for m in maps] == [(25, 33), (13, 17), (7, 9), (4, 5)]
    network = timm('vit_tiny_patch16_224', depth=3, features_only=True)()
    maps = mmparc.parcify(network, replace='attention')(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, 192, 4, 6)] * 3
    image = torch.randn(1, 3, 64, 96)
    for name in ('vit_tiny_patch16_224', 'swin_tiny_patch4_window7_224'):
        network = mmparc.parcify(timm(name)(), replace='attention')
        network.reset_classifier(7)
        network.set_input_size((64, 96))
        network.set_grad_checkpointing()
        assert network(image).shape == (1, 7)
    try:
        mmparc.parcify(timm('vit_tiny_patch16_224')(), replace='attention')(image, is_causal=True)
    except ValueError as error:
        assert 'mask' in str(error)
    else:
        raise AssertionError('a mask is not refused')


def torchvision_few():
    check(models.convnext_tiny)
    check(torchvision_vit, replace='attention')


def torchvision_all():
    torchvision_few()
    check(models.resnet50)
    check(models.mobilenet_v3_large, replace='all')
    for options in ({}, dict(channel_attention=True), dict(img_size=(160, 320))):
        check(torchvision_vit, replace='attention', **options)
        check(models.swin_t, replace='attention', **options)
        check(models.swin_v2_t, replace='attention', **options)
    check_refused(models.maxvit_t(), replace='attention')


for absent in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'):
    try:
        importlib.import_module(absent)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f'{absent} is there')
globals()[f'{PACKAGE}_{AMOUNT}']()
log = logging.getLogger('mmparc')
assert not log.handlers and not logging.getLogger().handlers and log.level == logging.NOTSET
other = {'timm': 'torchvision', 'torchvision': 'timm'}[PACKAGE]
assert f'mmparc.surgery.{PACKAGE}' in sys.modules and f'mmparc.surgery.{other}' not in sys.modules
