"""parcify in environments that have torch and one package of networks, and no OpenMMLab."""

import subprocess
from pathlib import Path

import pytest
from torch_only import torch_only_env

full = pytest.mark.full


@pytest.mark.parametrize(
    ('package', 'amount'),
    [
        ('timm', 'few'),
        pytest.param('timm', 'all', marks=full),
        ('torchvision', 'few'),
        pytest.param('torchvision', 'all', marks=full),
    ],
)
def test_it_needs_torch_alone(package, amount, tmp_path):
    """Names, weights, forward and backward at two sizes; see alone.py."""
    script = Path(__file__).with_name('alone.py')
    command = [*torch_only_env(tmp_path / 'env', package), script, package, amount]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
