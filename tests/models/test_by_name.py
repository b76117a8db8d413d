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
from mmengine.logging import MMLogger

import mmparc.models  # noqa: F401  forwards the logs
from mmparc.layers import ParCConv

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
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope

cfg = get_config('{package}::{config}')
init_default_scope('{package}')
cfg.model.backbone = dict(type='mmparc.ParCify', backbone=cfg.model.backbone, stages=(2, 3))
cfg.model.pop('pretrained', None)
cfg.model.backbone.backbone.pop('init_cfg', None)
model = MODELS.build(cfg.model)
print('type', type(model.backbone).__module__)
print(*(n for n, m in model.backbone.named_modules() if type(m).__name__ == 'ParCMixer'))
"""
CONV = dict(in_channels=4, out_channels=4, kernel_size=3)
LAYERS = [
    dict(type='mmparc.ParCMixer', channels=4, kernel_size=7),
    dict(type='mmparc.ParCConv', axis='h', **CONV),
    dict(type='mmparc.ParCConv2d', padding=1, taps=7, **CONV),
]
CONFIGS = {
    'mmdet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'mmseg': 'fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'mmpretrain': 'resnet/resnet50_8xb32_in1k.py',
}


@pytest.mark.parametrize(
    'package',
    ['mmpretrain', *(pytest.param(p, marks=pytest.mark.full) for p in ('mmdet', 'mmseg'))],
)
def test_built_by_name_without_custom_imports(package):
    partials = [*TRANSFORMERS.values(), *(kind.parc for kind in BACKBONES.values())]
    configs = [dict(type=f'mmparc.{p.func.__name__}', **p.keywords) for p in partials]
    scripts = [
        BUILD.format(package=package, configs=configs),
        *(BUILD.format(package=package, configs=[layer]) for layer in LAYERS),
        CONFIG.format(package=package, config=CONFIGS[package]),
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


def test_layers_log_to_mmengines_logger(caplog):
    """And so to a training's log file, once each."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        saved = ParCConv(4, 4, 7, 'h', bias=False, pos_embed=False).state_dict()
        ParCConv(4, 4, 9, 'h', bias=False, pos_embed=False).load_state_dict(saved)
    finally:
        logger.removeHandler(caplog.handler)
    (line,) = [record.getMessage() for record in caplog.records if record.name == logger.name]
    assert ' 7 ' in line and ' 9 ' in line
