"""tools/make_env.py without a network: what stops it, what it decides, and when it does nothing.

The script is loaded from a copy in a throw-away project, so that no test can touch this checkout.
"""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import venv
from collections import namedtuple
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip('tomllib')  # Python 3.10 has none

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / 'tools' / 'make_env.py'
CPU = {'torch': '2.12.1+cu130', 'cuda': '13.0', 'archs': [], 'nvidia': []}
GPU = {**CPU, 'archs': ['8.0', '9.0'], 'nvidia': ['/nvidia/cu13/include']}
Usage = namedtuple('Usage', 'total used free')


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with all that make_env reads, and an empty wheel cache; gives make_env itself."""
    for name in ('tools/make_env.py', 'pyproject.toml', 'requirements/constraints.txt'):
        (tmp_path / 'project' / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / 'project' / name)
    for name in (
        'CXX',
        'CFLAGS',
        'MMPARC_CONSTRAINTS',
        'MMPARC_EXTRA',
        'MMPARC_VENV',
        'CPATH',
        'CUDA_HOME',
        'CUDA_PATH',
        'PIP_CACHE_DIR',
        'PIP_RETRIES',
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    spec = importlib.util.spec_from_file_location(
        'make_env', tmp_path / 'project' / 'tools' / 'make_env.py'
    )
    make_env = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_env)
    return make_env


@pytest.fixture
def fine(project, monkeypatch):
    """The same where every check passes and .venv's Python is not started in our stead."""
    for check in ('check_python', 'check_system', 'check_disk'):
        monkeypatch.setattr(project, check, lambda: None)
    monkeypatch.setattr(project.os, 'execv', lambda *_: None)
    return project


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def the_error(make_env, capsys):
    """Runs it; gives its error, which must be one line, and makes sure that nothing has changed."""
    before = files(make_env.ROOT)
    assert make_env.main() == 1
    captured = capsys.readouterr()
    assert captured.err.startswith('error: ') and captured.err.count('\n') == 1
    after = {path: data for path, data in files(make_env.ROOT).items() if path != make_env.LOG}
    assert after == before
    return captured.err.strip()


class TestChecks:
    @pytest.mark.parametrize('version', [(3, 6, 15), (3, 10, 13), (3, 14, 0)])
    def test_wrong_python(self, project, monkeypatch, capsys, version):
        fake = SimpleNamespace(
            version_info=version, prefix='/usr', executable='/usr/bin/python3', stderr=sys.stderr
        )
        monkeypatch.setattr(project, 'sys', fake)
        error = the_error(project, capsys)
        assert f'Python 3.{version[1]} ' in error
        assert '3.11 to 3.13' in error and 'PYTHON=' in error

    def test_old_pythons_can_parse_it(self):
        ast.parse(SCRIPT.read_text(), feature_version=(3, 6))
        with pytest.raises(SyntaxError):  # the check sees what is too new
            ast.parse('(a := 1)', feature_version=(3, 6))

    def test_the_range_is_that_of_the_constraints(self, project, monkeypatch):
        shutil.copy(ROOT / 'requirements/constraints-torch2.1.txt', project.CONSTRAINTS)
        for version, error in (((3, 10), None), ((3, 11), None), ((3, 12), '3.10 to 3.11')):
            fake = SimpleNamespace(version_info=version, prefix='/usr', executable='python')
            monkeypatch.setattr(project, 'sys', fake)
            with pytest.raises(project.Problem, match=error) if error else nullcontext():
                project.check_python()

    def test_settings(self, project, monkeypatch):
        project.check_settings()
        other = project.VENV / 'lib/python3.11/site-packages/onedl_mmcv-2.3.6.dist-info'
        other.mkdir(parents=True)
        with pytest.raises(project.Problem, match='holds onedl-mmcv'):
            project.check_settings()
        monkeypatch.setattr(project, 'MMCV', 'onedl-mmcv')
        project.check_settings()
        project.CONSTRAINTS.write_text('torch==2.1.2\n')
        with pytest.raises(project.Problem, match='no file with a line of its Pythons'):
            project.check_settings()
        monkeypatch.setattr(project, 'MMCV', '')
        with pytest.raises(project.Problem, match="'mm', not mm or onedl"):
            project.check_settings()

    @pytest.mark.parametrize('version', [(3, 11), (3, 12), (3, 13)])
    def test_right_python(self, project, monkeypatch, version):
        monkeypatch.setattr(project, 'sys', SimpleNamespace(version_info=version))
        project.check_python()

    def test_missing_compiler(self, project, monkeypatch, capsys, tmp_path):
        monkeypatch.setattr(project, 'loads', lambda *_: True)
        project.check_system()
        monkeypatch.setenv('PATH', str(tmp_path))
        error = the_error(project, capsys)
        assert error.endswith(' sudo apt-get update && sudo apt-get install -y g++')

    def test_compiler_named_by_cxx(self, project, monkeypatch, capsys, tmp_path):
        monkeypatch.setenv('CXX', 'no-such-compiler')
        assert 'CXX' in the_error(project, capsys)
        monkeypatch.setenv('CXX', f'{sys.executable} -I')
        monkeypatch.setenv('PATH', str(tmp_path))
        assert project.compiler() == f'{sys.executable} -I'

    def test_missing_library(self, project, monkeypatch, capsys):
        assert project.loads('libc.so.6') and not project.loads('libno-such-library.so.9')
        monkeypatch.setattr(project, 'loads', lambda *names: 'libGL.so.1' not in names)
        assert the_error(project, capsys).endswith('install -y libgl1')

    def test_everything_missing(self, project, monkeypatch, capsys, tmp_path):
        monkeypatch.setattr(project, 'loads', lambda *_: False)
        monkeypatch.setattr(project.importlib.util, 'find_spec', lambda _: None)
        monkeypatch.setattr(project.sysconfig, 'get_config_var', lambda _: str(tmp_path))
        monkeypatch.setenv('PATH', str(tmp_path))
        assert the_error(project, capsys) == (
            'error: system packages are missing: sudo apt-get update && sudo apt-get install -y '
            'python3-venv python3-dev g++ libgl1 libglib2.0-0 libxcb1'
        )

    def test_too_little_disk(self, project, monkeypatch, capsys):
        monkeypatch.setattr(project, 'check_system', lambda: None)
        monkeypatch.setattr(project.shutil, 'disk_usage', lambda _: Usage(0, 0, 1_200_000_000))
        error = the_error(project, capsys)
        assert 'too little disk' in error and '1.2 GB are free' in error
        assert re.search(r'\d+\.\d GB are needed', error)

    def test_disk_needs_what_is_missing(self, project, monkeypatch):
        """Torch, the other packages and mmcv's build each count until they are there."""

        def need():
            return sum(size for _, size in project.disk_needs())

        def install(package):
            version = project.pinned(package)
            folder = project.VENV / 'lib/python3.11/site-packages'
            (folder / f'{package}-{version}.dist-info').mkdir(parents=True)

        everything = need()
        install('torch')
        assert need() == everything - project.TORCH['venv'] - 2 * project.TORCH['download']
        install('ftfy')
        assert need() == project.BUILD
        wheels = project.cache(*project.WHEELS, project.wheel_key(CPU, 'cpu'))
        wheels.mkdir(parents=True)
        (wheels / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl').touch()
        assert need() == 0
        monkeypatch.setattr(project.shutil, 'disk_usage', lambda _: Usage(0, 0, 0))
        project.check_disk()


class TestIndex:
    def test_unreachable(self, fine, monkeypatch, capsys):
        """A real pip against a port where nobody listens; it stops within seconds."""
        venv.create(fine.VENV, with_pip=False, symlinks=True)
        (site,) = fine.VENV.glob('lib/python*/site-packages')
        pip = importlib.util.find_spec('pip').submodule_search_locations[0]
        (site / 'pip').symlink_to(pip)
        (site / 'treasure.py').write_text('value = 1\n')
        settings = {'INDEX_URL': 'http://127.0.0.1:9', 'EXTRA_INDEX_URL': '', 'FIND_LINKS': ''}
        for name, value in {**settings, 'CONFIG_FILE': os.devnull}.items():
            monkeypatch.setenv(f'PIP_{name}', value)
        error = the_error(fine, capsys)
        assert 'index could not be reached' in error and 'PIP_INDEX_URL' in error
        assert str(fine.LOG) in error
        assert 'Connection refused' in fine.LOG.read_text()
        assert not fine.up_to_date()

    @pytest.fixture
    def pip(self, fine, monkeypatch):
        """Calls pip() with the given outcomes of its tries; gives how many were made."""
        monkeypatch.setattr(fine.time, 'sleep', lambda _: None)

        def call(*outcomes):
            tries = iter(outcomes)
            done = []
            monkeypatch.setattr(fine, 'run', lambda *_: done.append(1) or next(tries))
            try:
                fine.pip(None, 'install', 'x')
            except fine.Problem as problem:
                return len(done), str(problem)
            return len(done), None

        return call

    def test_a_hiccup_is_tolerated(self, pip):
        hiccup = 1, ["connection broken by 'ReadTimeoutError(...)'", 'ERROR: no x']
        assert pip(hiccup, (0, [])) == (2, None)
        tries, problem = pip(hiccup, hiccup)
        assert tries == 2 and 'ReadTimeoutError' in problem

    def test_other_failures_are_not_tried_again(self, pip):
        output = ['x.cpp:1:1: error: no such thing', 'make: *** [x] 1', 'ERROR: Failed to build']
        tries, problem = pip((1, output))
        assert tries == 1 and 'no such thing' in problem
        assert '\n' not in problem


class TestProgress:
    @pytest.mark.parametrize(
        'line, shown',
        [
            ('  Downloading torch-2.12.1-cp311-linux.whl (532.2 MB)', 'torch-2.12.1 (532.2 MB)'),
            (
                '  Downloading https://x/y-z/torch-2.1-cp311.whl (9 kB)',
                'downloading torch-2.1 (9 kB)',
            ),
            ('  Downloading mmcv-2.1.0.tar.gz (471 kB)', 'mmcv-2.1.0.tar.gz (471 kB)'),
            ('  [12/77] c++ -MMD -MF nms.o.d', 'compiling 12/77'),
            ('Installing collected packages: a, b', 'unpacking'),
            ('Collecting torch', ''),
        ],
    )
    def test_what_is_shown(self, project, line, shown):
        step = project.Step(1, 'title')
        step.follow(line)
        assert shown in step.detail and bool(shown) == bool(step.detail)


class TestWheelCache:
    def test_key_tells_apart_what_must_not_be_mixed(self, project, monkeypatch):
        other = {**CPU, 'torch': '2.13.0+cu130'}
        keys = {
            project.wheel_key(CPU, 'cpu'),
            project.wheel_key(other, 'cpu'),
            project.wheel_key(CPU, 'cuda13.0-sm9.0'),
        }
        monkeypatch.setattr(project.sys, 'version_info', (3, 99, 0))
        keys.add(project.wheel_key(CPU, 'cpu'))
        assert len(keys) == 4

    def test_only_whole_wheels_get_their_name(self, project, monkeypatch, tmp_path):
        target = tmp_path / 'wheels'

        def broken_pip(*_, **__):
            (tmp_path / 'mmcv-2.1.0-x.whl').write_text('half')
            raise project.Problem('no')

        monkeypatch.setattr(project, 'pip', broken_pip)
        with pytest.raises(project.Problem):
            project.build_mmcv(None, {'CFLAGS': '', 'FORCE_CUDA': '0'}, tmp_path, None, target)
        assert not target.exists()
        monkeypatch.setattr(project, 'pip', lambda *_, **__: None)
        project.build_mmcv(None, {'CFLAGS': '', 'FORCE_CUDA': '0'}, tmp_path, None, target)
        assert [path.name for path in target.iterdir()] == ['mmcv-2.1.0-x.whl']


class TestStamp:
    @pytest.fixture
    def made(self, fine):
        fine.PYTHON.parent.mkdir(parents=True)
        fine.PYTHON.touch()
        (fine.VENV / 'pyvenv.cfg').write_text('version = 3.11.2\n')
        fine.STAMP.write_text(fine.fingerprint())
        return fine

    def test_nothing_to_do(self, made, monkeypatch, capsys):
        monkeypatch.setattr(made, 'make_env', None)  # would be an error
        assert made.main() == 0
        assert capsys.readouterr() == ('', '')

    @pytest.mark.parametrize(
        'name, old, new',
        [
            ('requirements/constraints.txt', 'torch==', 'torch==9'),
            ('pyproject.toml', "'mmdet", "'another', 'mmdet"),
            ('tools/make_env.py', '-O1', '-O2'),
            ('.venv/pyvenv.cfg', '3.11.2', '3.12.1'),
        ],
    )
    def test_changes_count(self, made, name, old, new):
        path = made.ROOT / name
        assert made.up_to_date() and old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        assert not made.up_to_date()

    def test_the_settings_of_tools_do_not_count(self, made):
        path = made.ROOT / 'pyproject.toml'
        path.write_text(path.read_text().replace('line-length = 100', 'line-length = 99'))
        assert made.up_to_date()

    def test_a_python_that_is_gone(self, made, capsys):
        made.PYTHON.unlink()
        assert not made.up_to_date()
        made.PYTHON.symlink_to('/no/such/python')
        assert 'remove that folder' in the_error(made, capsys)


class TestCuda:
    @pytest.mark.parametrize(
        'probe, toolkits, ops, home, notes',
        [
            (CPU, [], 'cpu', '', False),
            (CPU, [('/cuda', '13.0')], 'cpu', '', False),
            (GPU, [('/cuda', '13.0')], 'cuda13.0-sm8.0_9.0', '/cuda', False),
            (GPU, [('/old', '12.8'), ('/cuda', '13.2')], 'cuda13.2-sm8.0_9.0', '/cuda', False),
            (GPU, [], 'cpu', '', True),
            (GPU, [('/old', '12.8')], 'cpu', '', True),
            ({**GPU, 'cuda': None}, [('/cuda', '13.0')], 'cpu', '', False),
        ],
    )
    def test_choice(self, project, probe, toolkits, ops, home, notes):
        chosen = project.choose_ops(probe, toolkits)
        assert chosen[:2] == (ops, home)
        assert ('detection then runs on the CPU only' in chosen[2]) == notes
        assert '\n' not in chosen[2]

    def test_build_with_cuda(self, project, monkeypatch, tmp_path):
        monkeypatch.setenv('CPATH', '/mine')
        env = project.build_env(GPU, '/cuda', tmp_path)
        assert env['CUDA_HOME'] == '/cuda' and env['FORCE_CUDA'] == '1'
        assert env['TORCH_CUDA_ARCH_LIST'] == '8.0;9.0'
        assert env['CPATH'] == '/mine:/nvidia/cu13/include'
        assert env.get('CUDA_VISIBLE_DEVICES') == os.environ.get('CUDA_VISIBLE_DEVICES')

    def test_build_without_hides_the_gpu(self, project, tmp_path):
        env = project.build_env(GPU, '', tmp_path)
        assert env['CUDA_VISIBLE_DEVICES'] == '' and env['FORCE_CUDA'] == '0'
        assert int(env['MAX_JOBS']) >= 1 and env['MMCV_WITH_OPS'] == '1'

    def test_toolkits(self, project, monkeypatch, tmp_path):
        """Those with nvcc and headers count, CUDA_HOME's first."""
        for name in ('first', 'second', 'headless'):
            (tmp_path / name / 'bin').mkdir(parents=True)
            nvcc = tmp_path / name / 'bin' / 'nvcc'
            nvcc.write_text(f'#!/bin/sh\necho "release {12 if name == "first" else 13}.1, V"\n')
            nvcc.chmod(0o755)
            (tmp_path / name / 'include').mkdir()
            if name != 'headless':
                (tmp_path / name / 'include' / 'cuda_runtime.h').touch()
        monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'first'))
        monkeypatch.setenv('CUDA_PATH', str(tmp_path / 'headless'))
        monkeypatch.setenv('PATH', f'{tmp_path}/second/bin:{os.environ["PATH"]}')
        expected = [(str(tmp_path / 'first'), '12.1'), (str(tmp_path / 'second'), '13.1')]
        assert project.toolkits()[:2] == expected


class TestPins:
    def test_the_forks_stack_differs_in_what_they_ask_for_alone(self):
        files = [ROOT / f'requirements/constraints{name}.txt' for name in ('', '-onedl')]
        own, forks = (dict(re.findall(r'^(\S+)==(\S+)', f.read_text(), re.M)) for f in files)
        shared = own.keys() & forks.keys()
        assert {n for n in shared if own[n] != forks[n]} == {'opencv-python'}
        assert len(shared) > 90

    @pytest.mark.parametrize(
        'name, other',
        [
            ('constraints.txt', 'onedl'),
            ('constraints-torch2.1.txt', 'onedl'),
            ('constraints-onedl.txt', 'mm'),
        ],
    )
    def test_all_that_we_ask_for_is_pinned(self, name, other):
        lines = (ROOT / 'requirements' / name).read_text().splitlines()
        pins = [Requirement(line) for line in lines if line and not line.startswith('#')]
        by_name = {canonicalize_name(pin.name): pin for pin in pins}
        assert len(by_name) == len(pins)
        assert not [pin for pin in pins if pin.url]
        project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
        assert [Requirement(line).name for line in project['dependencies']] == ['torch']
        del project['optional-dependencies'][other]
        for line in sum(project['optional-dependencies'].values(), project['dependencies']):
            wanted = Requirement(line)
            (pin,) = by_name[canonicalize_name(wanted.name)].specifier
            assert pin.operator == '==' and wanted.specifier.contains(pin.version), line


class TestMakefile:
    def make(self, *arguments):
        return subprocess.run(['make', *arguments], cwd=ROOT, capture_output=True, text=True)

    def test_help_names_the_targets(self):
        targets = self.make('help').stdout
        for target in ('env', 'demo', 'test', 'lint', 'format'):
            assert f'make {target} ' in targets

    def test_no_such_python(self):
        result = self.make('env', 'PYTHON=no-such-python')
        assert result.returncode
        errors = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
        assert len(errors) == 1 and 'no-such-python' in errors[0]

    def test_scripts_can_be_run(self):
        for path in (ROOT / '.ci' / 'run', SCRIPT):
            assert os.access(path, os.X_OK)
