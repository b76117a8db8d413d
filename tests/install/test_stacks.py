"""tools/try_stacks.py: what it runs for a stack, and the page of results. No stack is made here."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from helpers import ROOT

spec = importlib.util.spec_from_file_location('try_stacks', ROOT / 'tools/try_stacks.py')
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def test_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment comes first; then tests that exist run in it."""
    ran = []

    def run(*command: str, allowed: tuple[int, ...] = (0,), **variables: str) -> list[str]:
        assert allowed == ((0, 1) if 'pytest' in command else (0,))
        ran.append((command, variables))
        lines = {'freeze': ['torch==2.1.2', '-e here'], 'git': ['abc'], 'pytest': ['3 passed']}
        return next((lines[word] for word in lines if word in command), [])

    monkeypatch.setattr(tool, 'run', run)
    row = tool.try_stack('torch2_1-py310')
    assert ran[0][1]['PYTHON'] == 'python3.10'
    assert (ROOT / ran[0][1]['MMPARC_CONSTRAINTS']).name == 'constraints-torch2.1.txt'
    named = [word.removeprefix('--ignore=') for command, _ in ran for word in command]
    named = [word.partition('::')[0] for word in named if word.startswith('tests/')]
    assert len(named) == 4 and all((ROOT / name).exists() for name in named)
    assert row['tests'] == row['training'] == '3 passed'
    assert row['versions'] == {'Python': '3.10', 'torch': '2.1.2'}


def test_the_page_is_that_of_the_results() -> None:
    """The results are for today's pinned versions."""
    results = json.loads(tool.RESULTS.read_text())
    assert tool.RESULTS.with_suffix('.md').read_text() == tool.page(results)
    for name, row in results.items():
        pins = Path(ROOT, 'requirements', f'constraints{tool.PINS[name.split("-")[0]]}.txt')
        pins = dict(re.findall(r'^(\S+)==(\S+)$', pins.read_text(), re.M))
        assert re.fullmatch('[0-9a-f]{7,}', row['commit']), 'of a changed checkout'
        # compiled, before mmcv-lite
        old = {('mmcv', '2.1.0'), ('Python', row['versions']['Python'])}
        assert 'torch' in row['versions'] and row['versions'].items() - old <= pins.items(), name
