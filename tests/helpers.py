"""What all tests share: comparisons, and the tools and others as processes.

The measure of comparisons is the project's relative error, max|a - b| / max|b|, in float64.
"""

import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch.torch_version import TorchVersion

# It has no safe loading to rely on, and neither compiles nor exports ParC: such tests are skipped.
OLD_TORCH = TorchVersion(torch.__version__) < '2.6'
needs_safe_loading = pytest.mark.skipif(OLD_TORCH, reason='safe loading needs torch>=2.6')
needs_compiler = pytest.mark.skipif(OLD_TORCH, reason='torch.compile of ParC needs torch>=2.6')
# What a CPU computes in.
HALVES = [torch.bfloat16] if OLD_TORCH else [torch.bfloat16, torch.float16]

# The maintained forks ship other configs.
FORKS = bool(list(metadata.distributions(name='onedl-mmengine')))


def relative_error(actual, expected) -> float:
    """max|actual - expected| / max|expected| of two tensors or arrays of one shape.

    Two empty ones have the error 0; where ``expected`` is all zeros the error is the absolute one.
    A NaN in either gives NaN, which no bound lets pass.
    """
    actual, expected = (torch.as_tensor(t).detach().cpu().double() for t in (actual, expected))
    assert actual.shape == expected.shape, f'shapes {actual.shape} and {expected.shape}'
    if expected.numel() == 0:
        return 0.0
    scale = expected.abs().max().item()
    return (actual - expected).abs().max().item() / (scale or 1.0)


def assert_close(actual, expected, bound: float, what: str = 'result') -> None:
    """Fail unless the relative error is at most ``bound``."""
    error = relative_error(actual, expected)
    assert error <= bound, f'{what}: relative error {error:.3g} exceeds {bound:.3g}'


# The configs

ROOT = Path(__file__).parents[1]


def read_metafiles_once() -> None:
    """Let mmengine remember them: for each config that inherits an upstream one it would read all
    metafiles of that package, half a second's worth of YAML that nothing here changes.
    """
    utils = importlib.import_module('mmengine.config.utils')
    utils.load = functools.cache(utils.load)


# The tools as processes

# What a tool spends most of its time on before it does anything.
HEAVY = (
    'mmengine.runner',
    'mmparc.engine',
    'mmparc.models',
    *(
        f'{package}.{part}'
        for package in ('mmdet', 'mmseg', 'mmpretrain')
        for part in ('datasets', 'engine', 'evaluation', 'models', 'visualization')
    ),
)


def run_tool(
    tool: str | Path,
    *args: object,
    cwd: Path,
    fresh: bool = False,
    timeout: int = 300,
    meanwhile: Callable[[int], None] = lambda pid: None,
) -> subprocess.CompletedProcess[str]:
    """Run a script of the project, tools/train.py for one, as a process of its own, on the CPU.

    Args:
        tool: the script, a path below the project's root or an absolute one.
        args: its command line.
        cwd: where it runs.
        fresh: start a new interpreter, as a user does. Otherwise the process is forked from one
            that has imported the packages and done nothing else, which saves most of the time.
        timeout: seconds after which it is killed.
        meanwhile: called with the number of a forked process that has just begun.
    """
    command = [str(ROOT / tool), *map(str, args)]
    if fresh:
        return subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env=tool_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    server = _fork_server()
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, 'out'), Path(folder, 'err')
        request = dict(argv=command, cwd=str(cwd), out=str(out), err=str(err), timeout=timeout)
        server.stdin.write(json.dumps(request) + '\n')
        server.stdin.flush()
        try:
            meanwhile(int(server.stdout.readline()))
        finally:
            answer = server.stdout.readline()
        assert answer, 'the process that tools are forked from has ended'
        return subprocess.CompletedProcess(command, int(answer), out.read_text(), err.read_text())


def error_line(tool: str | Path, *args: object, cwd: Path, fresh: bool = False) -> str:
    """Run a tool that must fail and leave nothing behind; the one line that it prints."""
    before = sorted(cwd.rglob('*'))
    result = run_tool(tool, *args, cwd=cwd, fresh=fresh)
    assert (result.returncode, result.stdout) == (1, ''), result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ')
    assert sorted(cwd.rglob('*')) == before, 'a refused run left files behind'
    return line


def tool_environment() -> dict[str, str]:
    """The environment of a tool under test: this checkout's mmparc, one thread, no GPU."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    return {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}


@functools.cache
def _fork_server() -> subprocess.Popen:
    """This file, run as a process that forks the tools; it ends with the process that asked."""
    return subprocess.Popen(
        [sys.executable, __file__],
        env=tool_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _serve() -> None:
    """Fork a child for each request, one JSON line, and answer with its number and its exit code.

    Returns in the child alone, which goes on as the script that was asked for.
    """
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what a package prints as it is imported is no answer
    for name in HEAVY:
        importlib.import_module(name)
    read_metafiles_once()
    for config in ROOT.glob('configs/*/convnext/*parc-*_toy.py'):  # of one task each
        importlib.import_module('mmengine.config').Config.fromfile(config)
    sys.stdout.flush()  # or each child would say it again
    gc.freeze()  # or each child spends seconds on tidying up all of this when it ends
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            break
        print(child, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
    else:
        sys.exit()
    for number, path in ((0, os.devnull), (1, request['out']), (2, request['err'])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    signal.alarm(request['timeout'])
    os.chdir(request['cwd'])
    sys.argv = request['argv']
    sys.path[0] = str(Path(sys.argv[0]).parent)


# Fresh interpreters that lack packages

# Code after which nothing but the standard library, what torch needs, and the packages named on the
# command line can be imported.
BLOCK = """
import sys

NEEDS_OF_TORCH = {
    'filelock', 'fsspec', 'functorch', 'jinja2', 'markupsafe', 'mpmath', 'networkx', 'nvidia',
    'sympy', 'torchgen', 'triton', 'typing_extensions',
}
ALLOWED = set(sys.stdlib_module_names) | NEEDS_OF_TORCH | set(sys.argv[1:])
refused = set()


class Block:
    def find_spec(self, name, path=None, target=None):
        package = name.partition('.')[0]
        if package not in ALLOWED:
            refused.add(package)
            raise ModuleNotFoundError(f'{name} is blocked here', name=name)


sys.meta_path.insert(0, Block())
"""


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, in the project's folder."""
    command = [sys.executable, '-W', 'ignore', '-c', code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


if __name__ == '__main__':
    _serve()
    runpy.run_path(sys.argv[0], run_name='__main__')
