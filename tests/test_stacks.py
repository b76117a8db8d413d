"""tools/try_stacks.py: what it makes of pytest's reports, and the page; no stack is made here."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers import ROOT

TESTS = """
import pytest

@pytest.mark.parametrize('i', range(3))
def test_right(i):
    pass

def test_wrong():
    assert 1 == 2, 'one is not two'

@pytest.fixture
def broken():
    raise OSError('no disk')

def test_broken(broken):
    pass

@pytest.mark.skip(reason='not here')
def test_elsewhere():
    pass
"""
VERSIONS = {'Python': '3.10.9', 'torch': '2.1', 'numpy': '1.26', 'opencv-python': '4', 'mmcv': '2'}
GOOD = {'passed': 7, 'failed': {}, 'skipped': {'not here': 2}}


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('try_stacks', ROOT / 'tools/try_stacks.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(tests: dict, trained: int = 3) -> dict:
    training = {**GOOD, 'passed': trained}
    about = {'commit': 'abc', 'minutes': 1.0, 'versions': VERSIONS}
    return {**about, 'tests': tests, 'training': training}


def pytest_in(folder: Path, *arguments: str) -> int:
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--rootdir']
    alone = {**os.environ, 'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1'}  # which takes seconds less
    command += [str(folder), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, env=alone).returncode


def test_reports_of_pytest(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / 'test_few.py').write_text(TESTS)
    report = tmp_path / 'report.xml'
    assert pytest_in(tmp_path, f'--junitxml={report}', 'test_few.py') == 1
    outcome = tool.read_report(report)
    assert outcome['passed'] == 3 and outcome['skipped'] == {'not here': 1}
    wrong, broken = outcome['failed'].items()
    assert wrong == ('test_few::test_wrong', 'AssertionError: one is not two')
    assert broken[0] == 'test_few::test_broken' and 'no disk' in broken[1]
    assert not tool.is_good(result(outcome))


def test_what_counts_as_passed(tool: ModuleType) -> None:
    assert tool.is_good(result(GOOD))
    assert not tool.is_good(result({**GOOD, 'passed': 0}))  # nothing ran
    assert not tool.is_good(result({**GOOD, 'failed': {'test_a::test_b': 'why'}}))
    assert not tool.is_good(result(GOOD, trained=2))


@pytest.mark.parametrize('argument', ['no_such_test.py', '--no-such-option'])
def test_tests_that_did_not_run(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    """pytest may leave a report then, of no tests."""
    monkeypatch.setenv('PYTEST_DISABLE_PLUGIN_AUTOLOAD', '1')
    with pytest.raises(tool.Trouble, match='pytest ended with exit status 4'):
        tool.run_tests(Path(sys.executable), '-p', 'no:cacheprovider', argument)


def test_another_stack_is_not_taken_for_it(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    minor = f'{sys.version_info[0]}.{sys.version_info[1]}'
    stack = tool.Stack(minor, str(tmp_path / 'pins.txt'))
    monkeypatch.setattr(tool, 'ROOT', Path(sys.prefix).parent)
    monkeypatch.setattr(tool, 'SHOWN', ['torch', 'onedl-mmcv'])
    python = Path(sys.prefix, 'bin', 'python')
    found = {'mmparc': '1', 'pip': '2', 'torch': '2.1.2+cpu', 'onedl_mmcv': '2.3.6', 'left': '0'}
    monkeypatch.setattr(tool, 'INSTALLED', f'print({json.dumps(["3.99.1", found])!r})')

    def refusal(pins: str) -> str:
        (tmp_path / 'pins.txt').write_text(pins)
        with pytest.raises(tool.Trouble) as raised:
            tool.versions(python, stack)
        return str(raised.value)

    assert 'holds left 0, torch 2.1.2, Python 3.99.1:' in refusal('torch==2.1\nonedl-mmcv==2.3.6\n')
    found['left'] = '1'
    monkeypatch.setattr(tool, 'INSTALLED', f'print({json.dumps([f"{minor}.1", found])!r})')
    assert 'holds left 1, onedl-mmcv 2.3.6:' in refusal('torch==2.1.2\n')
    (tmp_path / 'pins.txt').write_text('# Left\nLeft==1\ntorch==2.1.2\nonedl-mmcv==2.3.6\n')
    assert tool.versions(python, stack) == {
        'Python': f'{minor}.1',
        'torch': '2.1.2',
        'onedl-mmcv': '2.3.6',
    }


def test_the_page(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was not tried says so, and what failed is named."""
    monkeypatch.setattr(tool, 'RESULTS', tmp_path / 'stacks.json')
    first, second = list(tool.STACKS)[:2]
    tests = {**GOOD, 'failed': {'test_a::test_b': 'why'}}
    results = {first: result(tests, trained=2)}
    tool.write(results)
    assert json.loads(tool.RESULTS.read_text()) == results
    page = tool.RESULTS.with_suffix('.md').read_text()
    rows = {line.split(' | ')[0][2:]: line for line in page.splitlines() if line.startswith('| ')}
    assert '| 3.10.9 | 2.1 | 1.26 | 4 | mmcv 2 | 7 / 1 / 2 | 2 of 3 | 1.0 | abc |' in rows[first]
    assert 'not tried' in rows[second]
    assert page.count('- failed: `test_a::test_b`: why') == 1


def test_the_page_is_that_of_the_results(tool: ModuleType) -> None:
    """And these are of the versions that the constraints name today."""
    results = json.loads(tool.RESULTS.read_text())
    assert tool.RESULTS.with_suffix('.md').read_text() == tool.page(results)
    for name, tried in results.items():
        stack, versions = tool.STACKS[name], dict(tried['versions'])
        assert versions.pop('Python').startswith(f'{stack.python}.')
        pins = tool.pins(stack.constraints)
        assert versions and versions == {package: pins[package] for package in versions}
        assert re.fullmatch('[0-9a-f]{7,}', tried['commit']), 'of a changed checkout'


def test_unknown_stacks_and_pythons(tool: ModuleType, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, 'argv', ['try_stacks.py', 'no-such-stack'])
    assert tool.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no stack 'no-such-stack'") and error.count('\n') == 1
    with pytest.raises(tool.Trouble, match=r'no python3\.99 here'):
        tool.interpreter('3.99')
    for stack in tool.STACKS.values():
        assert (ROOT / stack.constraints).is_file()
    for path in tool.LEFT_OUT:
        assert (ROOT / 'tests' / path).exists()
