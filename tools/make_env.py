#!/usr/bin/env python3
"""Builds the environment: `.venv` in the checkout, with the stack of requirements/constraints.txt.

Another one is made with other values of MMPARC_VENV (the folder), MMPARC_CONSTRAINTS (the file of
versions, whose head says for which Pythons they are) and MMPARC_EXTRA (which extra of mmparc has
the OpenMMLab packages: mm, or onedl for their forks). tools/try_stacks.py makes its stacks so.

Standard library only, and in syntax that Python 3.6 parses: an unsuitable Python gets a message.
mmcv has no wheel for this stack: it is compiled once and kept under $XDG_CACHE_HOME/mmparc/wheels
(~/.cache where that is unset), keyed by Python, torch and CUDA. A run that fails leaves what is
installed as it is, and the next one goes on from there. Sizes are in MB.
"""

import collections
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / os.environ.get('MMPARC_VENV', '.venv')
PYTHON = VENV / 'bin' / 'python'
LOG = VENV / 'make_env.log'
STAMP = VENV / 'make_env.stamp'
WHEELS = 'mmparc', 'wheels'  # below the cache
MMCV_KEY = VENV / 'mmcv.key'  # says which of the wheels in the cache is installed
CONSTRAINTS = ROOT / os.environ.get('MMPARC_CONSTRAINTS', 'requirements/constraints.txt')
EXTRA = os.environ.get('MMPARC_EXTRA', 'mm')
MMCVS = {'mm': 'mmcv', 'onedl': 'onedl-mmcv'}
MMCV = MMCVS.get(EXTRA, '')

BUILD_NEEDS = ['setuptools', 'wheel', 'ninja', 'psutil', 'packaging', 'numpy']

# Disk, measured: what torch, the other packages and the build of mmcv leave in .venv, and what pip
# and the compiler need beside it while they work.
TORCH = {'venv': 4950, 'download': 2700}
OTHERS = {'venv': 650, 'download': 250}
BUILD = 500

# What the build needs to know of the torch in .venv; run with the build's CFLAGS.
PROBE = """
import json, setuptools, sysconfig, torch
from distutils.ccompiler import new_compiler
from distutils.sysconfig import customize_compiler
from pathlib import Path
from torch.utils.cpp_extension import BuildExtension, include_paths
compiler = new_compiler()
customize_compiler(compiler)
gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
nvidia = Path(torch.__file__).parent.parent / 'nvidia'
# older torches name it to the compiler, and a header precompiled without that would be left out
abi = ['-D_GLIBCXX_USE_CXX11_ABI=%d' % torch._C._GLIBCXX_USE_CXX11_ABI]
abi = abi if hasattr(BuildExtension, '_add_gnu_cpp_abi_flag') else []
print(json.dumps({
    'torch': torch.__version__,
    'cuda': torch.version.cuda,
    'archs': sorted({'%d.%d' % torch.cuda.get_device_capability(i) for i in gpus}),
    'flags': compiler.compiler_so[1:] + abi,
    'include': [*include_paths(), sysconfig.get_config_var('INCLUDEPY')],
    'nvidia': sorted(str(path) for path in nvidia.glob('*/include')),
}))
"""

# Python 3.10 has no tomllib, but pip brings one.
READ_EXTRAS = """
import json, sys
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
with open(sys.argv[1], 'rb') as file:
    print(json.dumps(tomllib.load(file)['project']['optional-dependencies']))
"""

# mmcv's setup.py reads its version through exec() and locals(), which Python 3.13 took apart. This
# sitecustomize.py puts it together again for the build.
OLD_EXEC = """
import builtins, sys
def old_exec(code, globals=None, locals=None, exec=exec):
    if globals is None:
        frame = sys._getframe(1)
        globals, locals = frame.f_globals, frame.f_locals
    exec(code, globals, locals)
builtins.exec = old_exec
"""

# The last step imports what the tools import: it shows that the environment works, and writes the
# bytecode that pip is told to leave out (all of it would take half a minute).
IMPORTS = (
    'import torch, torchvision, tensorboard, pytest, mmcv.ops, mmengine.runner, '
    'mmpretrain.apis, mmdet.apis, mmseg.apis, mmparc'
)

# What a file of constraints says of itself.
PYTHONS = re.compile(r'Python 3\.(\d+) to 3\.(\d+)')

NETWORK_TROUBLE = re.compile(
    'connection broken by|ConnectionError|ConnectTimeout|ReadTimeout|IncompleteRead|ProxyError'
    '|SSLError|Max retries exceeded|name resolution|Network is unreachable|not a trusted or secure'
)


class Problem(Exception):
    """What stops the environment from being made: one line, with its cause and its cure."""


class Step:
    """A step's line on the screen: redrawn every second on a terminal, added to elsewhere."""

    def __init__(self, number: int, title: str):
        self.title = f'[{number}/5] {title}'
        self.detail = ''
        self.start = time.monotonic()
        self.done = threading.Event()
        self.painter = threading.Thread(target=self._paint, daemon=True)

    def __enter__(self):
        print(self.title, '...', flush=True, end='' if sys.stdout.isatty() else '\n')
        self.painter.start()
        return self

    def __exit__(self, kind, value, traceback):
        self.done.set()
        self.painter.join()
        self._draw('failed' if kind else 'done', '\n')

    def _paint(self):
        while not self.done.wait(1 if sys.stdout.isatty() else 20):
            self._draw(self.detail, '' if sys.stdout.isatty() else '\n')

    def _draw(self, text: str, end: str):
        line = f'{self.title} ... {time.monotonic() - self.start:.0f} s {text}'
        if sys.stdout.isatty():
            line = '\r\033[K' + line[: shutil.get_terminal_size().columns - 1]
        print(line, end=end, flush=True)

    def follow(self, line: str):
        """Takes what is worth showing from a line of pip's or ninja's output."""
        name = r'(?:\S*/)?([^\s/]+?-\d[^-\s]*)'
        found = re.search(rf'Downloading {name}\S* (\(.+\))|\[(\d+/\d+)\] ', line)
        if found and found.group(3):
            self.detail = f'compiling {found.group(3)}'
        elif found:
            self.detail = 'downloading ' + ' '.join(found.groups()[:2])
        elif line.startswith('Installing collected packages'):
            self.detail = 'unpacking'


def run(step: Step, command: list, env=None) -> tuple:
    """Runs a command, its output to the log; gives its exit status and the last of its lines."""
    env = dict(env or os.environ, PYTHONUNBUFFERED='1')
    env.pop('PYTHONDONTWRITEBYTECODE', None)  # torch without bytecode takes 6 s more to import
    tail = collections.deque(maxlen=2000)
    with LOG.open('a', encoding='utf-8') as log:
        log.write(f'$ {" ".join(map(shlex.quote, map(str, command)))}\n')
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=str(ROOT),
            encoding='utf-8',
            errors='replace',
        )
        with process:
            for line in process.stdout:
                log.write(line)
                tail.append(line.strip())
                step.follow(line)
        log.write(f'exit status {process.returncode}\n')
    return process.returncode, list(tail)


def pip(step: Step, verb: str, *arguments, env=None):
    """Runs the pip of .venv; a broken connection gets one more try."""
    retries = [] if 'PIP_RETRIES' in os.environ else ['--retries', '1']
    command = [PYTHON, '-m', 'pip', verb, *retries, *arguments]
    for pause in (3, 0):
        status, lines = run(step, command, env)
        if status == 0:
            return
        trouble = next((line for line in lines if NETWORK_TROUBLE.search(line)), None)
        if not trouble:
            errors = [line for line in lines if re.search(r'\berror: ', line)]
            errors += [line for line in lines if line.startswith('ERROR: ')]
            raise Problem(f'pip failed: {(errors or lines or ["no output"])[0]} (all of it: {LOG})')
        time.sleep(pause)
    cause = re.search(r'\w*(Error|Timeout)\w*\(.*?\)', re.sub(r'<[^>]*>: ', '', trouble))
    raise Problem(
        f'the package index could not be reached, {cause.group() if cause else trouble}: check '
        f'network, proxy and PIP_INDEX_URL, then run this again (the output of pip: {LOG})'
    )


def compiler() -> str:
    """The C++ compiler that the build will call; '' if there is none."""
    names = [os.environ['CXX']] if os.environ.get('CXX') else ['c++', 'g++']
    return next((name for name in names if shutil.which(shlex.split(name)[0])), '')


def loads(*libraries: str) -> bool:
    import ctypes

    try:
        return all(ctypes.CDLL(library) for library in libraries)
    except OSError:
        return False


def check_settings():
    """What MMPARC_EXTRA and MMPARC_CONSTRAINTS name, and whether the environment is of another."""
    if not MMCV:
        raise Problem(f'MMPARC_EXTRA is {EXTRA!r}, not {" or ".join(MMCVS)}: correct or unset it')
    if not (CONSTRAINTS.is_file() and PYTHONS.search(CONSTRAINTS.read_text())):
        raise Problem(
            f'MMPARC_CONSTRAINTS names {CONSTRAINTS}, which is no file with a line of its Pythons, '
            '"# Python 3.11 to 3.13": correct or unset it'
        )
    for other in set(MMCVS.values()) - {MMCV}:
        if any(VENV.glob(f'lib/python*/site-packages/{other.replace("-", "_")}-*.dist-info')):
            raise Problem(
                f'{VENV} holds {other}, which has the import names of {MMCV}: remove that folder, '
                'or name another one in MMPARC_VENV'
            )


def check_python():
    version = sys.version_info[:2]
    oldest, newest = ((3, int(end)) for end in PYTHONS.search(CONSTRAINTS.read_text()).groups())
    if not oldest <= version <= newest:
        cure = 'name another, as in `make env PYTHON=python3.11`'
        if Path(sys.prefix) == VENV:
            cure = f'it is the one in {VENV}: remove that folder, then run this again'
        raise Problem(
            f'this is Python {version[0]}.{version[1]} ({sys.executable}), '
            f'but the packages need 3.{oldest[1]} to 3.{newest[1]}: {cure}'
        )


def check_system():
    """The system packages of Debian that pip, the build of mmcv and OpenCV need."""
    if os.environ.get('CXX') and not compiler():
        raise Problem(f'CXX names a compiler that is not here ({os.environ["CXX"]}): unset CXX')
    present = {
        'python3-venv': all(importlib.util.find_spec(name) for name in ('venv', 'ensurepip')),
        'python3-dev': Path(sysconfig.get_config_var('INCLUDEPY'), 'Python.h').exists(),
        'g++': compiler(),
        'libgl1': loads('libGL.so.1'),
        'libglib2.0-0': loads('libglib-2.0.so.0', 'libgthread-2.0.so.0'),
        'libxcb1': loads('libxcb.so.1'),
    }
    missing = ' '.join(package for package in present if not present[package])
    if missing:
        raise Problem(
            f'system packages are missing: sudo apt-get update && sudo apt-get install -y {missing}'
        )


def pinned(package: str) -> str:
    return re.search(rf'^{package}==(\S+)', CONSTRAINTS.read_text(), re.MULTILINE).group(1)


def installed(package: str) -> bool:
    name = package.replace('-', '_')
    return any(VENV.glob(f'lib/python*/site-packages/{name}-{pinned(package)}.dist-info'))


def mmcv_wheel(folder: Path):
    """The wheel of mmcv, or of its fork, in a folder; None if there is none."""
    return next(folder.glob(f'{MMCV.replace("-", "_")}-{pinned(MMCV)}-*.whl'), None)


def cache(*names: str) -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', *names)


def disk_needs() -> list:
    """(place, MB) of all that is still to be written."""
    temp = Path(tempfile.gettempdir())
    pip_cache = Path(os.environ.get('PIP_CACHE_DIR') or cache('pip'))
    needs = []
    # ftfy stands for the others: it is in all files of constraints
    for package, size in (('torch', TORCH), ('ftfy', OTHERS)):
        if not installed(package):
            needs += [(VENV, size['venv']), (temp, size['download'])]
            if 'PIP_NO_CACHE_DIR' not in os.environ:
                needs.append((pip_cache, size['download']))
    if not any(map(mmcv_wheel, cache(*WHEELS).glob(f'{python_tag()}-torch{pinned("torch")}*'))):
        needs.append((temp, BUILD))
    return needs


def check_disk():
    """Adds up the needs of each file system, and compares them with what is free there."""
    needs, places = collections.Counter(), {}
    for place, size in disk_needs():
        while not place.exists():
            place = place.parent
        device = place.stat().st_dev
        needs[device] += size
        places.setdefault(device, place)
    for device, need in needs.items():
        free = shutil.disk_usage(str(places[device])).free // 10**6
        if free < need:
            raise Problem(
                f'too little disk: {need / 1000:.1f} GB are needed on the file system of '
                f'{places[device]}, {free / 1000:.1f} GB are free: free some, or put TMPDIR and '
                'PIP_CACHE_DIR on another disk'
            )


def python_tag() -> str:
    platform = re.sub(r'\W', '_', sysconfig.get_platform())
    return f'cp{sys.version_info[0]}{sys.version_info[1]}-{platform}'


def wheel_key(probe: dict, ops: str) -> str:
    return f'{python_tag()}-torch{probe["torch"]}-{ops}'


def nvcc_version(home: str) -> str:
    """'13.0' of the toolkit in a folder; '' if there is none."""
    nvcc = Path(home, 'bin', 'nvcc')
    if not (nvcc.exists() and Path(home, 'include', 'cuda_runtime.h').exists()):
        return ''
    output = subprocess.run([str(nvcc), '--version'], stdout=subprocess.PIPE).stdout.decode()
    found = re.search(r'release (\d+\.\d+)', output)
    return found.group(1) if found else ''


def toolkits() -> list:
    """(folder, version) of each CUDA toolkit: CUDA_HOME's, the one on the PATH, the usual one."""
    nvcc = shutil.which('nvcc')
    homes = [os.environ.get('CUDA_HOME'), os.environ.get('CUDA_PATH')]
    homes += [str(Path(nvcc).resolve().parent.parent) if nvcc else None, '/usr/local/cuda']
    found = [(home, nvcc_version(home)) for home in dict.fromkeys(filter(None, homes))]
    return [(home, version) for home, version in found if version]


def choose_ops(probe: dict, found: list) -> tuple:
    """Which ops mmcv gets: (key, CUDA toolkit or '', what the user should know or '').

    CUDA ops where torch sees a GPU and a toolkit has the major version that torch was built with.
    """
    if not (probe['archs'] and probe['cuda']):
        return 'cpu', '', ''
    major = probe['cuda'].split('.')[0]
    for home, version in found:
        if version.split('.')[0] == major:
            return f'cuda{version}-sm{"_".join(probe["archs"])}', home, ''
    seen = ', '.join(f'{version} in {home}' for home, version in found) or 'none'
    note = f'note: no nvcc of CUDA {major} (found: {seen}), so mmcv gets CPU ops'
    return 'cpu', '', f'{note}: detection then runs on the CPU only'


def cflags() -> str:
    return f'{os.environ.get("CFLAGS", "")} -g0 -O1 -DNDEBUG'.strip()


def jobs() -> int:
    """As many as there are cores, as far as the memory allows 2 GB for each."""
    available = re.search(r'MemAvailable:\s+(\d+)', Path('/proc/meminfo').read_text())
    memory = [int(available.group(1)) * 1024]
    container = Path('/sys/fs/cgroup/memory.max')
    if container.exists() and container.read_text().strip().isdigit():
        memory.append(int(container.read_text()))
    return max(1, min(len(os.sched_getaffinity(0)), min(memory) // 2**31))


def build_env(probe: dict, home: str, folder: Path) -> dict:
    """The environment of mmcv's build, CUDA in `home` or CPU ops."""
    env = {**os.environ, 'MMCV_WITH_OPS': '1', 'CXX': compiler(), 'MAX_JOBS': str(jobs())}
    env['CFLAGS'] = cflags()
    if sys.version_info >= (3, 13):
        (folder / 'sitecustomize.py').write_text(OLD_EXEC)
        env['PYTHONPATH'] = str(folder)
    if home:
        env.update(CUDA_HOME=home, FORCE_CUDA='1')
        env['TORCH_CUDA_ARCH_LIST'] = ';'.join(probe['archs'])
        # A small toolkit lacks headers that torch's own nvidia packages have; its own come first.
        env['CPATH'] = os.pathsep.join([os.environ.get('CPATH', ''), *probe['nvidia']]).strip(':')
    else:
        env.update(CUDA_VISIBLE_DEVICES='', FORCE_CUDA='0')  # with a GPU, setup.py asks for nvcc
    return env


def start_header(probe: dict, env: dict, folder: Path):
    """Precompiles, beside other work, the header that every source of mmcv begins with (GCC only).

    With it, a file takes a quarter of the time.
    """
    command = shlex.split(env['CXX'])
    version = subprocess.run([*command, '--version'], stdout=subprocess.PIPE).stdout
    if b'Free Software Foundation' not in version:
        return None
    header = folder / 'mmcv_pch.h'
    header.write_text('#include <torch/types.h>\n')
    command += ['-x', 'c++-header', *probe['flags'], '-std=c++17']
    command += ['-DTORCH_API_INCLUDE_EXTENSION_H', '-DTORCH_EXTENSION_NAME=_ext']
    command += [f'-I{path}' for path in probe['include']] + [str(header), '-o', f'{header}.gch']
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def build_mmcv(step: Step, env: dict, folder: Path, header, target: Path):
    """Compiles mmcv's wheel and puts it into the cache, under its name only when it is whole."""
    if header and header.wait() == 0:
        # Were it unsuitable, GCC would read its source instead, and say so in the log.
        flags = f'{env["CFLAGS"]} -Winvalid-pch -include {folder}/mmcv_pch.h'
        env = {**env, 'CFLAGS': flags}
    # pip's own cache keeps wheels without torch's version in their key.
    options = ['-v', '--no-deps', '--no-build-isolation', '--no-cache-dir', '--no-binary', MMCV]
    try:
        pip(step, 'wheel', *options, '-w', folder, f'{MMCV}=={pinned(MMCV)}', env=env)
    except Problem as problem:
        if env['FORCE_CUDA'] == '0':
            raise
        hint = '`CUDA_VISIBLE_DEVICES= make env` builds CPU ops instead'
        raise Problem(f'{problem}; {hint}') from None
    target.mkdir(parents=True, exist_ok=True)
    for wheel in folder.glob('*.whl'):
        partial = target / f'{wheel.name}.{os.getpid()}'
        shutil.copy(str(wheel), str(partial))
        partial.replace(target / wheel.name)


def packages(step: Step) -> list:
    """All that the extras ask for, but mmcv."""
    status, lines = run(step, [PYTHON, '-c', READ_EXTRAS, ROOT / 'pyproject.toml'])
    if status:
        raise Problem(f'pyproject.toml cannot be read: {lines[-1]} (all of it: {LOG})')
    extras = json.loads(lines[-1])
    return [line for line in extras[EXTRA] + extras['dev'] if not line.startswith(MMCV)]


def fingerprint() -> str:
    """What the environment was made from: the same again means that there is nothing to do."""
    needs = (ROOT / 'pyproject.toml').read_text().split('\n[tool.')[0]
    config = VENV / 'pyvenv.cfg'
    parts = [needs, CONSTRAINTS.read_text(), Path(__file__).read_text(), str(VENV), EXTRA]
    parts.append(config.read_text() if config.exists() else '')
    return hashlib.sha256('\0'.join(parts).encode()).hexdigest()


def up_to_date() -> bool:
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == fingerprint()


def make_env():
    install = ['--no-compile', '-c', CONSTRAINTS]
    with Step(1, 'virtual environment') as step:
        VENV.mkdir(exist_ok=True)
        LOG.write_text('')
        STAMP.unlink() if STAMP.exists() else None
        has_pip = PYTHON.exists() and any(VENV.glob('lib/python*/site-packages/pip'))
        if not has_pip and run(step, [sys.executable, '-m', 'venv', VENV])[0]:
            raise Problem(f'the virtual environment could not be made; {LOG} says why')
    with Step(2, 'torch and torchvision') as step:
        pip(step, 'install', *install, 'torch', 'torchvision', *BUILD_NEEDS)
        status, lines = run(step, [PYTHON, '-c', PROBE], {**os.environ, 'CFLAGS': cflags()})
        if status:
            raise Problem(f'torch does not work: {lines[-1]} (all of it: {LOG})')
        probe = json.loads(lines[-1])
    ops, home, note = choose_ops(probe, toolkits() if probe['archs'] else [])
    key = wheel_key(probe, ops)
    wheels = cache(*WHEELS, key)
    cached = bool(mmcv_wheel(wheels))
    with tempfile.TemporaryDirectory(prefix='mmparc-') as folder:
        env = build_env(probe, home, Path(folder))
        header = None if cached else start_header(probe, env, Path(folder))
        try:
            with Step(3, 'OpenMMLab and tools') as step:
                pip(step, 'install', *install, *packages(step))
            origin = 'from the cache' if cached else f'compiled ({ops})'
            with Step(4, f'{MMCV}, {origin}') as step:
                if not cached:
                    build_mmcv(step, env, Path(folder), header, wheels)
                if not installed(MMCV) or not MMCV_KEY.exists() or MMCV_KEY.read_text() != key:
                    options = ['--no-deps', '--no-index', '--force-reinstall']
                    pip(step, 'install', *options, mmcv_wheel(wheels))
                    MMCV_KEY.write_text(key)
        finally:
            if header:
                header.kill()
    with Step(5, 'mmparc') as step:
        pip(step, 'install', *install, '--no-build-isolation', '-e', f'.[{EXTRA},dev]')
        status, lines = run(step, [PYTHON, '-c', IMPORTS])
        if status:
            raise Problem(f'the environment does not work: {lines[-1]} (all of it: {LOG})')
    if note:
        print(note)
    STAMP.write_text(fingerprint())


def main() -> int:
    start = time.monotonic()
    try:
        if up_to_date():
            return 0
        if PYTHON.is_symlink() and not PYTHON.exists():
            raise Problem(f'the Python of {VENV} is gone: remove that folder')
        if PYTHON.exists() and not VENV.samefile(sys.prefix):
            os.execv(str(PYTHON), [str(PYTHON), __file__])
        check_settings()
        check_python()
        check_system()
        check_disk()
        make_env()
    except (Problem, OSError) as problem:
        print(f'error: {problem}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('error: interrupted; run this again to go on', file=sys.stderr)
        return 130
    enter = Path(os.path.relpath(str(VENV), str(ROOT)), 'bin', 'activate')
    print(f'ready after {time.monotonic() - start:.0f} s; `. {enter}` enters it')
    return 0


if __name__ == '__main__':
    sys.exit(main())
