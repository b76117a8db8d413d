"""Each ParC backbone is built by its name in a config, without custom_imports, in each package.

One fresh interpreter a package imports that package's models and of mmparc only what gives
mmcv-lite its operators, and starts a process for each group of names, so that each group's first
name is what brings mmparc's models in.
"""

import subprocess
import sys

import pytest
import torch
from backbones import in_eval
from helpers import ROOT, tool_environment
from mmengine.registry import MODELS
from test_models.test_attention import DEDICATED, KINDS, outputs_of
from test_models.test_every_backbone import BACKBONES, build

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
FAMILIES = """
import torch
from {package}.registry import MODELS

for name, options, shapes in {expected}:
    model = MODELS.build(dict(type='mmparc.' + name, **options))
    assert type(model).__module__.startswith('mmparc.'), type(model)
    assert [tuple(o.shape) for o in model(torch.zeros(2, 3, 64, 96))] == shapes, name
"""
ATTENTION = """
import torch
from {package}.registry import MODELS

for cfg in {cfgs}:
    model = MODELS.build(cfg)
    outputs = model(torch.zeros(2, 3, 64, 96))
    tensors = [t for o in outputs for t in (o if isinstance(o, tuple) else (o,))]
    shapes = [tuple(t.shape) for t in tensors]
    print(cfg['type'], len(model.state_dict()), *shapes)
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
    ['mmpretrain', *(pytest.param(p, marks=pytest.mark.slow) for p in ('mmdet', 'mmseg'))],
)
def test_built_by_name_without_custom_imports(package, tmp_path):
    families = []
    for family, kind in BACKBONES.items():
        options = {**kind.parc.keywords, 'out_indices': kind.pyramid}
        shapes = [tuple(o.shape) for o in build(family)(torch.zeros(2, 3, 64, 96))]
        families.append((kind.parc.func.__name__, options, shapes))
    own = [kind.cfg for kind in KINDS.values() if kind.cfg['type'].startswith(package)]
    cfgs = [
        *(dict(type='mmparc.ParCify', backbone=cfg, replace='attention') for cfg in own),
        *DEDICATED.values(),
    ]
    path = tmp_path / 'config.py'
    path.write_text(CONFIGS[package])
    scripts = [
        FAMILIES.format(package=package, expected=families),
        ATTENTION.format(package=package, cfgs=cfgs),
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
    expected = []
    for cfg in cfgs:
        model = in_eval(MODELS.build(cfg))
        shapes = (tuple(o.shape) for o in outputs_of(model, torch.zeros(2, 3, 64, 96)))
        expected.append(' '.join(map(str, (cfg['type'], len(model.state_dict()), *shapes))))
    *lines, kind, names = done.stdout.splitlines()
    assert [line for line in lines if line.startswith('mmparc.')] == expected
    # the inner type is of the config's own scope
    assert kind == f'type {package}.models.backbones.resnet'
    assert names.split() == ['layer3.4.conv2', 'layer3.5.conv2', 'layer4.2.conv2']
