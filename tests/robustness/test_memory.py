"""Long runs on maps of changing sizes: the process's memory."""

import json
import shutil
from pathlib import Path
from statistics import median

import memory
import pytest
import torch
from helpers import run_tool

from mmparc.ops import choose_backend, select

MIB = 1 << 20
BOUND = 16  # MiB between a run's second quarter and its last; oneDNN and malloc take some


def growth(case: str, iterations: int, kept: int, folder: Path) -> float:
    """MiB by which the last quarter's median resident memory exceeds the second quarter's."""
    done = run_tool('tests/memory.py', case, iterations, kept, cwd=folder, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    resident, quarter = json.loads(done.stdout.splitlines()[-1]), iterations // 4
    second, last = resident[quarter : 2 * quarter], resident[3 * quarter :]
    grown = (median(last) - median(second)) / MIB
    print(f'{case}, {iterations} iterations: {grown:+.1f} MiB')
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


def test_what_auto_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/layers/test_kernel_cache.py and tests/ops/test_select.py have the other caches."""
    monkeypatch.setattr(select, '_tables', {'auto': select._tables['auto']})
    monkeypatch.setattr(select, '_logged', set())
    x, weight = torch.ones(1, 2, 7, 7), torch.ones(2, 1, 3)
    for i in range(select.TABLES + 4):
        table = str(tmp_path / f'{i}.json')
        shutil.copy(select.SHIPPED_TABLE, table)
        choose_backend(x, weight, axis='h', table=table)
    assert len(select._tables) == select.TABLES and {'auto', table} <= {*select._tables}
    assert {path for path, _, _ in select._logged} == {*select._tables} - {'auto'}
