"""All tools: --help without torch, how they end, their place in `python -m mmparc`."""

import argparse
import ast
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import BLOCK, ROOT, run_python, tool_environment
from tool_calls import load_tool

from mmparc import converters, datasets, tool

TOOLS = sorted(path for path in ROOT.glob('tools/**/*') if path.suffix in ('.py', '.sh'))
# doctor.py says which packages are missing; try_stacks.py makes environments of its own.
OWN_WAY = ('doctor.py', 'try_stacks.py')
PYTHON = [path for path in TOOLS if path.suffix == '.py' and path.name not in OWN_WAY]
NAMES = [path.relative_to(ROOT / 'tools').with_suffix('').as_posix() for path in PYTHON]

# --help of each tool in one process: what it printed, and its CPU time.
HELP = """
import contextlib, io, json, runpy, sys, time
results = {}
for path in sys.argv[1:]:
    start, said = time.process_time(), io.StringIO()
    argv, sys.argv = sys.argv, [path, '--help']
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        runpy.run_path(path, run_name='__main__')
    sys.argv = argv
    results[path] = said.getvalue().partition(' ')[0], time.process_time() - start
print(json.dumps([results, sorted({'torch', 'numpy', 'mmengine'} & sys.modules.keys())]))
"""


def mmparc(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'mmparc', *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=tool_environment(), capture_output=True, text=True)


def test_help_is_immediate() -> None:
    """Arguments are parsed before anything heavy is imported."""
    done = run_python(HELP, *map(str, PYTHON))
    assert done.returncode == 0, done.stderr
    results, imported = ast.literal_eval(done.stdout)
    assert not imported
    for path, (first, seconds) in results.items():
        assert first == 'usage:' and seconds < 0.5, path


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    config = ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py'
    code = (
        BLOCK
        + 'import runpy; sys.argv = sys.argv[-2:]; runpy.run_path(sys.argv[0], {}, "__main__")'
    )
    done = run_python(code, 'mmparc', str(ROOT / 'tools/analysis/get_flops.py'), str(config))
    assert (done.returncode, done.stdout) == (1, '')
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: ') and 'make env' in line


def ended(error: BaseException | None, traceback: bool = False) -> object:
    """The exit code or message of a tool that meets an error."""
    with pytest.raises(SystemExit) as exit_, tool.one_line_errors(traceback):
        if error:
            raise error
        sys.exit(0)
    return exit_.value.code


def test_how_a_tool_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(None) == 0
    assert ended(tool.UserError('the cause: the fix')) == 'error: the cause: the fix'
    assert 'no/such.file' in ended(FileNotFoundError(2, 'No such file', 'no/such.file'))
    assert 'imaginary' in ended(ModuleNotFoundError('No module', name='imaginary'))
    assert ended(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == 'interrupted\n'
    # faults in the code keep their trace, and so does a UserError with --traceback
    for error in (ValueError('x'), ModuleNotFoundError('x', name='mmparc.no'), OSError('x')):
        with pytest.raises(type(error)), tool.one_line_errors():
            raise error
    with pytest.raises(tool.UserError), tool.one_line_errors(traceback=True):
        raise tool.UserError('x')


def test_output_that_nobody_reads(tmp_path: Path) -> None:
    """As in ``| head``: no trace, and no error either."""
    environment = {**tool_environment(), 'PYTHONUNBUFFERED': ''}
    for command in ('-m mmparc --help', f'{ROOT}/tools/analysis/plot.py erf --help'):
        run = f'(sleep 0.5; {sys.executable} {command}) | true; echo ${{PIPESTATUS[0]}}'
        done = subprocess.run(
            ['bash', '-c', run], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert (done.stdout, done.stderr) == ('141\n', '')


def test_config_options(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    tool.add_run_arguments(parser)
    args = parser.parse_args(['c.py', '--cfg-options', 'a.b=1', 'c=[1,(2,x)]', 'd=e=f'])
    assert args.cfg_options == {'a.b': 1, 'c': [1, (2, 'x')], 'd': 'e=f'}
    for wrong in ('a', 'a..b=1', '=1', 'a=[1,(2', '.a=1'):
        with pytest.raises(SystemExit) as exit_:
            parser.parse_args(['c.py', '--cfg-options', 'good=1', wrong])
        assert exit_.value.code == 2
        assert f"'{wrong}'" in capsys.readouterr().err.splitlines()[-1]


def test_choices_are_those_of_the_packages() -> None:
    """They are written twice, since the packages take long to import."""
    assert load_tool('convert_official.py').FAMILIES == tuple(converters.FAMILIES)
    data = load_tool('make_toy_data.py')
    for name in ('TASKS', 'SCENES', 'DIFFICULTIES'):
        assert getattr(data, name) == tuple(getattr(datasets, name))


def test_tools_have_their_run_bit() -> None:
    for path in TOOLS:
        assert os.access(path, os.X_OK) and path.read_text().startswith('#!'), path


def test_dist_train_says_how_to_use_it() -> None:
    for args in ([], ['config.py']):
        done = subprocess.run([ROOT / 'tools/dist_train.sh', *args], capture_output=True, text=True)
        assert done.returncode != 0 and done.stdout == ''
        (line,) = done.stderr.splitlines()
        assert line.startswith('error: ') and 'CONFIG GPUS' in line


# python -m mmparc


def test_lists_the_tools(tmp_path: Path) -> None:
    listed = mmparc(cwd=tmp_path).stdout.splitlines()[2:]
    summaries = dict(line.split(maxsplit=1) for line in listed)
    assert set(NAMES) <= set(summaries)
    for name, path in zip(NAMES, PYTHON):
        assert f'"""{summaries[name]}' in path.read_text()


def test_a_tool_sees_its_own_name_and_arguments(tmp_path: Path) -> None:
    for command in ('analysis/get_flops', 'get_flops'):
        result = mmparc(command, '--help', cwd=tmp_path)
        assert result.returncode == 0 and result.stdout.startswith('usage: get_flops.py [-h]')
    for command, hint in (('tran', "'train'"), ('analysis/getflops', "'analysis/get_flops'")):
        result = mmparc(command, cwd=tmp_path)
        (line,) = result.stderr.splitlines()
        assert result.returncode == 1 and f"'{command}'" in line and hint in line


def test_a_tool_is_the_main_module(tmp_path: Path) -> None:
    """What multiprocessing's spawned workers import again is the tool's file."""
    package = tmp_path / 'mmparc'
    (package / '.mim/configs/_base_/backbones').mkdir(parents=True)
    script = package / '.mim/tools/spy.py'
    script.parent.mkdir()
    script.write_text(
        inspect.cleandoc("""
        import sys
        from multiprocessing.spawn import get_preparation_data
        print(__name__, get_preparation_data('')['init_main_from_path'], *sys.argv)
        """)
    )
    for name in ('__init__.py', '__main__.py', 'errors.py', 'home.py', 'tool.py'):
        shutil.copy(ROOT / 'mmparc' / name, package)
    command = [sys.executable, '-m', 'mmparc', 'spy', '--x', '1']
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout == f'__main__ {script} {script} --x 1\n', result.stderr
