"""`mmparc.ops` stands on torch alone, and `import mmparc` stays light.

Each test runs a fresh interpreter in which nothing but the standard library, torch and what torch
itself needs can be imported, so that a hidden dependency fails, whatever is installed.
"""

import pytest
from helpers import BLOCK, run_python

CHECK = """
foreign = {'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'torchvision', 'scipy', 'cv2'}
loaded = {name.partition('.')[0] for name in sys.modules}
assert not foreign & loaded, foreign & loaded
# not even tried: a guarded import would come true where the package is installed
assert not foreign & refused, foreign & refused
"""

USE_OPS = """
import mmparc.ops

x = torch.randn(2, 4, 5, 6, requires_grad=True)
weight, bias, pos_embed = torch.randn(4, 2, 3), torch.randn(4), torch.randn(4, 3)
for axis in 'hw':
    expected = mmparc.ops.parc_reference(x, weight, bias, pos_embed, axis=axis, groups=2)
    for backend in (*mmparc.ops.BACKENDS, 'auto'):
        y = mmparc.ops.parc(x, weight, bias, pos_embed, axis=axis, groups=2, backend=backend)
        y.sum().backward()
        assert (y - expected).abs().max() < 1e-4
"""


def test_ops_need_torch_alone():
    done = run_python(BLOCK + 'import torch\n' + USE_OPS + CHECK, 'torch', 'mmparc')
    assert done.returncode == 0, done.stderr


def test_mmparc_imports_nothing_of_openmmlab():
    done = run_python(BLOCK + 'import mmparc\n' + CHECK, 'mmparc')
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    'code', ['import mmengine', 'try:\n    import mmcv\nexcept ImportError:\n    pass']
)
def test_the_block_notices(code):
    """Negative control: an import, and a guarded import, of OpenMMLab fail the check."""
    done = run_python(BLOCK + code + '\n' + CHECK)
    assert done.returncode != 0
    assert 'mmengine' in done.stderr or 'mmcv' in done.stderr
