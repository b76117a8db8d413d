"""Each registered name is built from a config, without custom_imports, in each package's scope.

A fresh interpreter imports that package's models and of mmparc only what gives mmcv-lite its
operators. It starts a process for each script, so that each script's first name is what imports
mmparc's models.
"""

import subprocess
import sys

import pytest
from backbones import BACKBONES, TRANSFORMERS
from helpers import ROOT, tool_environment

RUN = """
import gc
import importlib
import os
import sys

import mmparc

package, *scripts = sys.argv[1:]
importlib.import_module(f'{package}.models')
gc.freeze()
assert not any(name.startswith('mmparc.') for name in sys.modules)
for script in scripts:
    child = os.fork()
    if child == 0:
        exec(script)
        assert 'mmparc.models' in sys.modules
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit('it failed')
"""
BUILD = """
from {package}.registry import MODELS

for config in {configs}:
    assert type(MODELS.build(config)).__module__.startswith('mmparc.'), config
"""
CONFIG = """
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

cfg = Config.fromfile({path!r})
init_default_scope(cfg.default_scope)
model = MODELS.build(cfg.model)
model.init_weights()
print('type', type(model.backbone).__module__)
print(*(n for n, m in model.backbone.named_modules() if type(m).__name__ == 'ParCMixer'))
"""
CONV = dict(in_channels=4, out_channels=4, kernel_size=3)
LAYERS = [
    dict(type='mmparc.ParCMixer', channels=4, kernel_size=7),
    dict(type='mmparc.ParCConv', axis='h', **CONV),
    dict(type='mmparc.ParCConv2d', padding=1, taps=7, **CONV),
]
# In whole configs of upstream's.
CONFIGS = {
    'mmdet': """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmparc.ParCify',
        backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='BN'), frozen_stages=1)))
""",
    'mmseg': """
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='mmparc.ParCify',
        backbone=dict(
            type='ResNetV1c', depth=50, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4),
            out_indices=(0, 1, 2, 3)),
        stages=(2, 3),
        img_size=(512, 1024)))
""",
    'mmpretrain': """
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
model = dict(
    backbone=dict(_delete_=True, type='mmparc.ParCify', backbone=dict(type='ResNet', depth=50)))
""",
}


@pytest.mark.parametrize(
    'package',
    ['mmpretrain', *(pytest.param(p, marks=pytest.mark.full) for p in ('mmdet', 'mmseg'))],
)
def test_built_by_name_without_custom_imports(package, tmp_path):
    partials = [*TRANSFORMERS.values(), *(kind.parc for kind in BACKBONES.values())]
    configs = [dict(type=f'mmparc.{p.func.__name__}', **p.keywords) for p in partials]
    path = tmp_path / 'config.py'
    path.write_text(CONFIGS[package])
    scripts = [
        BUILD.format(package=package, configs=configs),
        *(BUILD.format(package=package, configs=[layer]) for layer in LAYERS),
        CONFIG.format(path=str(path)),
    ]
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', RUN, package, *scripts],
        cwd=ROOT,
        env=tool_environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    *_, kind, names = done.stdout.splitlines()
    # the inner type is of the config's own scope
    assert kind == f'type {package}.models.backbones.resnet'
    assert names.split() == ['layer3.4.conv2', 'layer3.5.conv2', 'layer4.2.conv2']
