"""What the failure tests share: small data, and the figures of the full ones.

`make robustness` runs all of them, `make robustness POINT=crash` those of test_crash.py; `make
test` runs those without the marker `full`.
"""

import csv
import functools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT

from mmparc.datasets import make_toy_data

FIGURES = ROOT / 'docs' / 'robustness' / 'figures.csv'
COLUMNS = ('point', 'what', 'tried', 'held', 'command', 'commit')


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
    """Print how many of how many held; in a full test, write it into figures.csv."""
    point = Path(request.path).stem.removeprefix('test_')

    def write(what: str, tried: int, held: int) -> None:
        print(f'{point}: {what}: {held} of {tried}')
        if request.node.get_closest_marker('full'):
            command = f'make robustness POINT={point}'
            new = dict(zip(COLUMNS, (point, what, tried, held, command, commit())))
            write_figure(FIGURES, new)

    return write


def write_figure(path: Path, new: dict) -> None:
    """Put a line into the file, in place of the one with the same point and text."""
    lines = []
    if path.exists():
        with path.open(newline='') as file:
            lines = list(csv.DictReader(file))
    keep = [line for line in lines if (line['point'], line['what']) != (new['point'], new['what'])]
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(sorted([*keep, new], key=lambda line: (line['point'], line['what'])))


@functools.cache  # as it was before the first figure was written
def commit() -> str:
    """The checkout's, with a + where files were changed."""
    run = ['git', '-C', str(ROOT), 'describe', '--always', '--dirty=+', '--exclude=*']
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
