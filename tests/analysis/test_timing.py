"""The timing of functions beside each other, with functions that tell when they are called."""

import itertools
import statistics
import time
from collections.abc import Callable

import pytest
import torch

from mmparc.analysis.timing import interleaved


def recording(names: str) -> tuple[dict[str, Callable[[], None]], list[str]]:
    """Functions that write their names into a list."""
    calls = []
    return {name: lambda name=name: calls.append(name) for name in names}, calls


def in_rounds(calls: list[str], size: int) -> list[str]:
    return [''.join(calls[i : i + size]) for i in range(0, len(calls), size)]


def test_each_round_has_all_functions_in_an_order_of_its_own() -> None:
    functions, calls = recording('abcd')
    times = interleaved(functions, seconds=0, rounds=30, warmup=2)
    assert list(times) == [*'abcd'] and {len(t) for t in times.values()} == {30}
    rounds = in_rounds(calls, 4)
    assert len(rounds) == 32 and rounds[:2] == ['abcd', 'abcd']
    assert {''.join(sorted(r)) for r in rounds} == {'abcd'}
    # no function always follows the same one, within a round or over two
    followed = {name: {b for a, b in itertools.pairwise(calls[8:]) if a == name} for name in 'abcd'}
    assert all(len(others) >= 3 for others in followed.values())


def test_times_are_those_of_one_call() -> None:
    """The warm-up is not among them, calls in a row are divided out, rounds fill the time."""
    first = []

    def slow_once() -> None:
        time.sleep(0.001 if first else 0.3)
        first.append(True)

    functions = dict(once=slow_once, slow=lambda: time.sleep(0.01))
    times = interleaved(functions, seconds=0.1, rounds=1, calls=4)
    once, slow = (statistics.median(times[name]) for name in ('once', 'slow'))
    assert 0.001 <= once < slow and 0.01 <= slow < 0.04
    assert max(times['once']) < 0.3 and 2 <= len(times['once']) <= 3
    first.clear()
    assert interleaved(functions, seconds=0, rounds=2, warmup=0)['once'][0] >= 0.3  # the control


def test_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    functions, calls = recording('ab')
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: calls.append('|'))
    interleaved(functions, seconds=0, rounds=3, warmup=0, calls=2)
    assert sorted(in_rounds(calls, 4)) == ['|aa|'] * 3 + ['|bb|'] * 3
