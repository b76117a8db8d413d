"""`python -m mmparc`: lists the tools without torch, and runs them as if they had been started."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import BLOCK, ROOT, run_python, tool_environment

TOOLS = sorted(path for path in ROOT.glob('tools/**/*.py'))
LIST = """
import runpy
sys.argv = ['mmparc', *sys.argv[3:]]
sys.path.insert(0, '')
runpy.run_module('mmparc', run_name='__main__')
"""


def mmparc(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'mmparc', *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=tool_environment(), capture_output=True, text=True)


def test_lists_the_tools_without_torch() -> None:
    result = run_python(BLOCK + LIST, 'mmparc', 'rich')
    assert result.returncode == 0, result.stderr
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()[2:]]
    names = [path.relative_to(ROOT / 'tools').with_suffix('').as_posix() for path in TOOLS]
    assert sorted(name for name, _ in lines) == sorted(names)
    for path, (_, summary) in zip(TOOLS, sorted(lines)):
        assert f'"""{summary}' in path.read_text()
    # the control: what blocks torch works
    result = run_python(BLOCK + LIST, 'mmparc', 'rich', 'train')
    assert (result.returncode, result.stdout) == (1, '')
    assert 'is not installed in this Python' in result.stderr


@pytest.mark.parametrize(
    'command, hint',
    [
        ('tran', "did you mean 'train'?"),
        ('analysis/getflops', "did you mean 'analysis/get_flops'?"),
        ('train.py', "did you mean 'train'?"),
        ('zzz', '`python -m mmparc` lists the commands'),
    ],
)
def test_unknown_command(command: str, hint: str, tmp_path: Path) -> None:
    result = mmparc(command, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, '')
    assert result.stderr == f"error: there is no command '{command}': {hint}\n"


@pytest.mark.parametrize('command', ['analysis/plot_curves', 'plot_curves'])
def test_a_tool_sees_its_own_name_and_arguments(command: str, tmp_path: Path) -> None:
    result = mmparc(command, '--help', cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.startswith('usage: plot_curves.py [-h]')
    result = mmparc(command, 'no/such/run', cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith('error: ') and 'no/such/run' in result.stderr


def test_a_tool_is_the_main_module(tmp_path: Path) -> None:
    """What multiprocessing's spawned workers import again is the tool's file."""
    package = tmp_path / 'mmparc'
    (package / '.mim/configs/_base_/backbones').mkdir(parents=True)
    tool = package / '.mim/tools/spy.py'
    tool.parent.mkdir()
    tool.write_text(
        'import sys\n'
        'from multiprocessing.spawn import get_preparation_data\n'
        "print(__name__, get_preparation_data('')['init_main_from_path'], *sys.argv)\n"
    )
    for name in ('__init__.py', '__main__.py', 'errors.py', 'home.py', 'tool.py'):
        shutil.copy(ROOT / 'mmparc' / name, package)
    command = [sys.executable, '-m', 'mmparc', 'spy', '--x', '1']
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout == f'__main__ {tool} {tool} --x 1\n', result.stderr
