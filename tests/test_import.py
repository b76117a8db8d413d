"""`mmparc.ops`, `mmparc.layers` and `mmparc.surgery` need torch alone; `import mmparc` is light."""

import subprocess

import pytest
from torch_only import torch_only_env

import mmparc

CODE = """
import sys

import mmparc

assert not {'torch', 'numpy'} & set(sys.modules)
assert set(mmparc.__all__) <= set(dir(mmparc))
assert 'parc_resnet50' in mmparc.list_backbones() and 'torch' not in sys.modules

import logging

import torch

import mmparc.layers
import mmparc.ops
import mmparc.surgery

log = logging.getLogger('mmparc')
assert not log.handlers and log.level == logging.NOTSET

x = torch.randn(2, 4, 5, 6, requires_grad=True)
weight, bias, pos_embed = torch.randn(4, 2, 3), torch.randn(4), torch.randn(4, 3)
for axis in 'hw':
    expected = mmparc.ops.parc_reference(x, weight, bias, pos_embed, axis=axis, groups=2)
    for backend in (*mmparc.ops.BACKENDS, 'auto'):
        y = mmparc.parc(x, weight, bias, pos_embed, axis=axis, groups=2, backend=backend)
        y.sum().backward()
        assert (y - expected).abs().max() < 1e-4

mixer = mmparc.ParCMixer(4, (5, 6))
mixer(x).sum().backward()
mixer.load_state_dict(mmparc.ParCMixer(4, 7).state_dict())
assert mmparc.layers.ParCConv2d(4, 4, 3, padding=1, taps=7)(x).shape == x.shape

try:
    mmparc.create_backbone('parc_resnet50')
except ImportError as error:
    message, = str(error).splitlines()
    assert 'mmparc[mm]' in message and 'mmengine' in message, message
else:
    raise AssertionError('create_backbone needs OpenMMLab')
assert not {'numpy', 'torchvision'} & set(sys.modules)
print('done')
"""


def test_torch_alone_is_enough(tmp_path):
    python = torch_only_env(tmp_path / 'env')
    done = subprocess.run([*python, '-c', CODE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, 'done\n'), done.stderr
    # negative control
    done = subprocess.run([*python, '-c', 'import mmengine'], capture_output=True, text=True)
    assert done.returncode == 1 and 'mmengine' in done.stderr


def test_unknown_name():
    with pytest.raises(AttributeError, match='parcel'):
        mmparc.parcel  # noqa: B018
