"""tools/try_stacks.py: what it makes of pytest's reports, and the page; no stack is made here."""

import importlib.util
import json
import os
import subprocess
import sys
from types import ModuleType

import pytest
from helpers import ROOT

pytest.importorskip('tomllib')  # as the tool needs Python 3.11

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


@pytest.fixture
def tool(tmp_path, monkeypatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location('try_stacks', ROOT / 'tools/try_stacks.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'RESULTS', tmp_path / 'stacks.json')
    return module


def test_reports_of_pytest(tool: ModuleType, tmp_path) -> None:
    (tmp_path / 'test_few.py').write_text(TESTS)
    report = tmp_path / 'report.xml'
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--rootdir']
    command += [str(tmp_path), f'--junitxml={report}', 'test_few.py']
    alone = {**os.environ, 'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1'}  # which takes seconds less
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, env=alone).returncode == 1
    outcome = tool.read_report(report)
    assert outcome['passed'] == 3 and outcome['skipped'] == {'not here': 1}
    wrong, broken = outcome['failed'].items()
    assert wrong == ('test_few::test_wrong', 'AssertionError: one is not two')
    assert broken[0] == 'test_few::test_broken' and 'no disk' in broken[1]


def test_the_page(tool: ModuleType) -> None:
    """What was not tried says so, and what failed is named."""
    first, second, third = list(tool.stacks())[:3]
    tests = {'passed': 7, 'failed': {'test_a::test_b': 'why'}, 'skipped': {'not here': 2}}
    about = {'commit': 'abc', 'command': 'make test-stacks', 'minutes': 1.0}
    results = {
        first: {**about, 'versions': VERSIONS, 'tests': tests, 'training': {**tests, 'passed': 2}},
        second: {**about, 'trouble': 'no python3.12 here'},
    }
    tool.write(results)
    assert json.loads(tool.RESULTS.read_text()) == results
    page = tool.RESULTS.with_suffix('.md').read_text()
    rows = {line.split(' | ')[0][2:]: line for line in page.splitlines() if line.startswith('| ')}
    assert '| 3.10.9 | 2.1 | 1.26 | 4 | mmcv 2 | 7 / 1 / 2 | 2 of 3 | abc |' in rows[first]
    assert 'not to its end, see below' in rows[second] and 'no python3.12 here' in page
    assert 'not tried' in rows[third]
    assert page.count('- failed: `test_a::test_b`: why') == 2


def test_the_page_is_that_of_the_results() -> None:
    spec = importlib.util.spec_from_file_location('try_stacks', ROOT / 'tools/try_stacks.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results = json.loads(module.RESULTS.read_text())
    assert module.RESULTS.with_suffix('.md').read_text() == module.page(results)
    for stack in module.stacks().values():
        assert (ROOT / stack['constraints']).is_file()


def test_unknown_stacks_and_pythons(tool: ModuleType, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, 'argv', ['try_stacks.py', 'no-such-stack'])
    assert tool.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no stack 'no-such-stack'") and error.count('\n') == 1
    with pytest.raises(tool.Trouble, match=r'no python3\.99 here'):
        tool.interpreter('3.99')
    assert not tool.RESULTS.exists()
