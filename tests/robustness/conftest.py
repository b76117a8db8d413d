"""What the failure tests share: small data, and the figures of the full ones.

`make robustness` runs all of them and writes docs/robustness/figures.csv, `make robustness
POINT=crash` those of test_crash.py; `make test` runs those without the marker `full`.
"""

import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from helpers import ROOT

from mmparc.datasets import make_toy_data


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns the root of a task's small data, made once, with 8 images to evaluate on."""

    @functools.cache
    def make(task: str, train: int = 16) -> Path:
        out = tmp_path_factory.mktemp('data')
        make_toy_data(out, task, train=train, val=8, size=(64, 64))
        return out / task

    return make


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, int, int], None]:
    """Prints how many of how many held; a full test writes it into $MMPARC_FIGURES, if that is set.

    A line replaces the one of the same point and text.
    """
    point = Path(request.path).stem.removeprefix('test_')
    path = os.environ.get('MMPARC_FIGURES')

    def write(what: str, tried: int, held: int) -> None:
        print(f'{point}: {what}: {held} of {tried}')
        if not path or not request.node.get_closest_marker('full'):
            return
        frame = pd.read_csv(path, dtype=str)
        others = frame[(frame['point'] != point) | (frame['what'] != what)]
        line = [point, what, tried, held, f'make robustness POINT={point}', commit()]
        new = pd.DataFrame([map(str, line)], columns=frame.columns)
        pd.concat([others, new]).sort_values(['point', 'what']).to_csv(path, index=False)

    return write


@functools.cache  # as it was before the first figure was written
def commit() -> str:
    """The checkout's, with a + where files were changed."""
    run = ['git', '-C', str(ROOT), 'describe', '--always', '--dirty=+', '--exclude=*']
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
