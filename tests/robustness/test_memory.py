"""Long runs on maps of changing sizes: the process's memory, and the bounds of all caches."""

import itertools
import json
import shutil
from pathlib import Path
from statistics import median

import memory
import pytest
import torch
from helpers import run_tool

from mmparc.layers import ParCConv, ParCMixer
from mmparc.layers.kernel_cache import LENGTHS
from mmparc.ops import BACKENDS, choose_backend, parc, select
from mmparc.ops.backends import fft

MIB = 1 << 20
BOUND = 16  # MiB between a run's second quarter and its last; oneDNN and malloc take some


def growth(case: str, iterations: int, kept: int, folder: Path) -> float:
    """MiB by which the last quarter's median resident memory exceeds the second quarter's."""
    done = run_tool('tests/memory.py', case, iterations, kept, cwd=folder, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    noted = json.loads(done.stdout.splitlines()[-1])
    resident, quarter = noted['resident'], iterations // 4
    assert len(resident) == iterations and noted['shapes'] > min(iterations, 800) * 0.8
    second, last = resident[quarter : 2 * quarter], resident[3 * quarter :]
    grown = (median(last) - median(second)) / MIB
    print(f'{case}, {iterations} iterations, {noted["shapes"]} shapes: {grown:+.1f} MiB')
    return grown


def test_a_leak_is_found_and_there_is_none(tmp_path: Path) -> None:
    """A hundred iterations; the control keeps twice what is allowed."""
    assert growth('training, fft', 100, 0, tmp_path) <= BOUND
    assert growth('training, fft', 100, 2 * BOUND * MIB // 50, tmp_path) > BOUND


@pytest.mark.full
def test_memory_stays_flat(tmp_path: Path, record) -> None:
    iterations = 2000
    kept = 2 * BOUND * MIB // (iterations // 2)
    found = growth('training, fft', iterations, kept, tmp_path) > BOUND
    record(f'control: {kept} bytes kept in each of {iterations} iterations', 1, int(found))
    flat = {case: growth(case, iterations, 0, tmp_path) <= BOUND for case in memory.CASES}
    for case, held in flat.items():
        record(f'{case}: memory is flat over {iterations} iterations', 1, int(held))
    assert found and all(flat.values()), flat


# Caches: each is asked for more than it may keep


def test_kernels_of_a_layer() -> None:
    shapes = [(h, w) for h in range(1, 4 * LENGTHS) for w in (h, 5 * LENGTHS - h)]
    for backend in BACKENDS:
        mixer = ParCMixer(4, 7, backend=backend).eval()
        with torch.no_grad():
            for h, w in shapes:
                for p in mixer.parameters():  # and kernels of other weights do not stay beside them
                    p.data.add_(0.01)
                mixer(torch.randn(1, 4, h, w))
            for h, w in shapes:
                mixer(torch.randn(1, 4, h, w))
        kernels = [layer._kernels for layer in mixer.modules() if isinstance(layer, ParCConv)]
        assert [len(kept) for kept in kernels] == [LENGTHS] * 2, backend
        mixer.train()
        mixer(torch.randn(1, 4, 5, 6))
        assert not any(map(len, kernels)), backend


def test_what_auto_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, '_tables', {'auto': select._tables['auto']})
    monkeypatch.setattr(select, '_logged', set())
    weight = torch.ones(2, 1, 3, requires_grad=True)
    for i in range(select.TABLES + 4):
        table = str(tmp_path / f'{i}.json')
        shutil.copy(select.SHIPPED_TABLE, table)
        for h, axis in itertools.product(range(1, 200, 7), 'hw'):
            choose_backend(torch.ones(1, 2, h, h), weight, axis=axis, table=table)
    assert (
        len(select._tables) == select.TABLES
        and 'auto' in select._tables
        and table in select._tables
    )
    assert {path for path, _, _ in select._logged} == {*select._tables} - {'auto'}
    lengths = sum(len(select._tables['auto'][f'cpu float32 depthwise {a} training']) for a in 'hw')
    assert 0 < len(select._logged) <= lengths * (select.TABLES - 1)


def test_plans_of_cufft() -> None:
    """tests/ops/test_select.py has the bound without a GPU."""
    if not torch.cuda.is_available():
        pytest.skip('only on a GPU')
    plans = torch.backends.cuda.cufft_plan_cache[torch.device('cuda', 0)]
    weight = torch.ones(2, 1, 7, device='cuda')
    for n in range(1, fft.PLANS + 20):
        parc(torch.ones(1, 2, n, 3, device='cuda'), weight, axis='h', groups=2, backend='fft')
    assert 0 < plans.size <= fft.PLANS
