"""tools/doctor.py: quiet where all is well, and with each trouble the command that mends it.

Troubles are real ones: the tool runs in a Python whose packages are links to those of this one,
some of them taken away, or replaced by what is broken. Few troubles need torch for that.
"""

import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from helpers import ROOT, run_tool, tool_environment
from mmengine.config import Config
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mmparc import ops
from mmparc.datasets import make_tiny_data
from mmparc.engine.config import datasets_of

tomllib = pytest.importorskip('tomllib')  # Python 3.10 has none

TOOL = ROOT / 'tools' / 'doctor.py'
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
NEEDS = [*PROJECT['dependencies'], *PROJECT['optional-dependencies']['mm']]
RANGES = {need.name: need.specifier for need in map(Requirement, NEEDS)}
SITE = Path(sysconfig.get_path('purelib'))


class Line(NamedTuple):
    mark: str
    name: str
    text: str
    fix: str


def lines_of(said: str) -> list[Line]:
    """The marked lines, each with the mending command below it."""
    found = re.findall(r'^  (ok|note|warn|BROKEN) +(.{21}) (.*)\n(?: {10}mend: (.*))?', said, re.M)
    return [Line(mark, name.strip(), text, fix) for mark, name, text, fix in found]


def the(said: str, name: str, last: bool = False) -> Line:
    """The line of a name, or the last one: packages have theirs among the versions too."""
    lines = [line for line in lines_of(said) if line.name == name]
    assert lines and (last or len(lines) == 1), said
    return lines[-1]


@pytest.fixture
def doctor() -> ModuleType:
    spec = importlib.util.spec_from_file_location('doctor', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Environment:
    """A Python of its own with links to the packages here, and mmparc as from a wheel.

    Args:
        keep: which packages, their metadata too; all by default.
        without: those of them that are left out.
    """

    def __init__(self, folder: Path, keep: tuple = (), without: tuple = ()) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.folder, self.python = folder, folder / 'bin' / 'python'
        (self.site,) = folder.glob('lib/python*/site-packages')
        for entry in SITE.iterdir():
            package = re.split(r'[-.]', entry.name.lower())[0]
            if package not in (*without, '__editable__', 'mmparc') and package in (
                keep or [package]
            ):
                (self.site / entry.name).symlink_to(entry)
        shutil.copytree(ROOT / 'mmparc', self.site / 'mmparc')
        self.tool = self.site / 'mmparc' / '.mim' / 'tools' / 'doctor.py'
        self.write('mmparc/.mim/tools/doctor.py', TOOL.read_text())
        extras = [
            f'{line}; extra == "{extra}"'
            for extra in ('mm', 'onedl')
            for line in PROJECT['optional-dependencies'][extra]
        ]
        self.distribution('mmparc', '0.1.0', requires=(*PROJECT['dependencies'], *extras))

    def write(self, name: str, content: str) -> None:
        path = self.site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def distribution(self, name: str, version: str, module: str = '', requires: tuple = ()) -> None:
        lines = ['Metadata-Version: 2.1', f'Name: {name}', f'Version: {version}']
        lines += [f'Requires-Dist: {line}' for line in requires]
        folder = f'{name.replace("-", "_")}-{version}.dist-info'
        self.write(f'{folder}/METADATA', '\n'.join(lines) + '\n')
        self.write(f'{folder}/top_level.txt', module)

    def run(self, code: int = 1) -> str:
        env = {k: v for k, v in tool_environment().items() if k != 'PYTHONPATH'}
        command = [self.python, self.tool]
        result = subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (code, ''), result.stdout + result.stderr
        return result.stdout


@pytest.fixture
def empty(tmp_path: Path) -> Environment:
    """A Python without packages, but for what reads version ranges."""
    return Environment(tmp_path / 'env', keep=('packaging',))


# Where all is well


@pytest.mark.slow
def test_this_environment(tmp_path: Path) -> None:
    result = run_tool(TOOL, cwd=tmp_path, fresh=True)
    said = result.stdout
    assert (result.returncode, result.stderr) == (0, ''), said + result.stderr
    assert '\n0 BROKEN, 0 warn' in said and 'BROKEN ' not in said.partition('\n0 BROKEN')[0]
    versions, loads = said.partition('\nData')[0].split('\nWhat loads')
    for name in (*RANGES, 'numpy', 'timm'):
        version, _, wanted = the(versions, name).text.partition(' ')
        assert version == importlib.metadata.version(name)
        assert SpecifierSet(wanted.strip().removeprefix('needs ')) == RANGES.get(name, '')
    tried = lines_of(loads)
    assert [line.mark for line in tried] == ['ok'] * (len(tried) - 1) + ['note']  # no GPU
    wanted = {'torch', 'torchvision', 'cv2', 'mmpretrain', 'mmdet', 'mmseg', 'mmparc.models'}
    assert wanted <= {line.name for line in tried}
    assert the(loads, 'mmcv.ops').text.startswith('nms is right on cpu; ')
    assert the(loads, 'mmparc.ops').text == ', '.join(ops.BACKENDS) + ' are right on cpu'
    assert the(loads, 'torch').text == f'CUDA {torch.version.cuda or "none"}; GPU none'


# Versions


@pytest.mark.parametrize(
    'name, wrong, right, fix',
    [
        ('mmcv', '2.2.0', '2.1.0', "MMCV_WITH_OPS=1 .* --no-build-isolation .*'mmcv<2.2,|make env"),
        ('mmengine', '0.10.4', '0.10.10', "-m pip install 'mmengine<1,>=0.10.5'"),
        ('torch', '2.0.1', '2.1.2+cpu', "-m pip install 'torch>=2.1'"),
        ('setuptools', '82.0.1', '80.8.0', "-m pip install 'setuptools<81'"),
    ],
)
def test_versions_outside_the_range(name, wrong, right, fix, empty: Environment) -> None:
    for version, mark in ((wrong, 'warn' if name == 'setuptools' else 'BROKEN'), (right, 'ok')):
        empty.distribution(name, version)
        line = next(line for line in lines_of(empty.run()) if line.name == name)
        assert line.mark == mark and line.text.startswith(version)
        assert (line.fix == '') if mark == 'ok' else re.search(fix, line.fix)
        shutil.rmtree(empty.site / f'{name}-{version}.dist-info')


def test_forks(empty: Environment) -> None:
    """Where they are they are what is asked for; beside the originals they are told of."""
    empty.distribution('onedl-mmcv', '2.3.6', module='mmcv')
    note = next(line for line in lines_of(empty.run()) if line.name == 'mmcv')
    assert (note.mark, note.text) == ('note', 'onedl-mmcv 2.3.6 stands in for it')
    for version, mark in (('0.10.9', 'BROKEN'), ('0.10.12', 'ok')):
        empty.distribution('onedl-mmengine', version, module='mmengine')
        said = empty.run()
        line = next(line for line in lines_of(said) if line.name == 'onedl-mmengine')
        assert line.mark == mark and line.text.startswith(version)
        assert ("'onedl-mmengine<1,>=0.10.12'" in line.fix) == (mark == 'BROKEN')
        assert the(said, 'onedl-mmdetection').mark == 'BROKEN'
        assert not [line for line in lines_of(said) if line.fix.endswith(("mmdet'", 'mmdet'))]
        shutil.rmtree(empty.site / f'onedl_mmengine-{version}.dist-info')
    empty.distribution('onedl-mmengine', '0.10.12', module='mmengine')
    empty.distribution('mmengine', '0.10.7', module='mmengine')
    right, both = [line for line in lines_of(empty.run()) if line.name == 'mmengine'][:2]
    assert (right.mark, both.mark) == ('ok', 'note')
    assert both.text == 'onedl-mmengine 0.10.12 installs the same mmengine'
    empty.distribution('JinJa2', '3.1.6', module='jinja2')  # the same package, by another spelling
    assert the(empty.run(), 'jinja2').mark == 'ok'


def test_nothing_is_installed(empty: Environment) -> None:
    """A package that is half removed counts as missing; without packaging and pip, too."""
    (empty.site / 'mmdet-3.3.0.dist-info').mkdir()
    said = empty.run()
    for name in RANGES:
        line = the(said, name)
        assert (line.mark, line.text) == ('BROKEN', 'not installed')
        if name == 'mmcv' and sys.version_info >= (3, 13):
            assert line.fix.startswith('build it with `make env` in a checkout')
        else:
            assert f'{empty.python} -m pip install' in line.fix and 'make' not in line.fix
    assert the(said, 'mmparc').text == '0.1.0'
    for path in empty.site.glob('packaging*'):
        path.unlink()
    said = empty.run()
    assert the(said, 'ranges').mark == 'note' and the(said, 'ranges').fix
    assert the(said, 'mmdet').mark == 'BROKEN'


def test_in_a_checkout(empty: Environment, tmp_path: Path) -> None:
    """A Python without mmparc, and .venv's, where make's stamp is in the way."""
    for path in empty.site.glob('mmparc*'):
        shutil.rmtree(path)
    empty.tool = TOOL
    said = empty.run()
    for name in ('mmparc', *RANGES):
        assert the(said, name).fix == f'cd {ROOT} && make env && . .venv/bin/activate'

    (tmp_path / 'tools').mkdir()
    for name in ('Makefile', 'pyproject.toml', 'tools/doctor.py'):
        shutil.copy(ROOT / name, tmp_path / name)
    inside = Environment(tmp_path / '.venv', keep=('packaging',))
    inside.tool = tmp_path / 'tools' / 'doctor.py'
    said = inside.run()
    stamp = 'rm -f .venv/make_env.stamp'
    assert the(said, 'mmdet').fix == f'cd {tmp_path} && {stamp} && make env'
    assert the(said, 'mmcv').fix == f'cd {tmp_path} && {stamp} .venv/mmcv.key && make env'
    make_env = (ROOT / 'tools' / 'make_env.py').read_text()
    assert "'make_env.stamp'" in make_env and "'mmcv.key'" in make_env


# What does not load


ERRORS = """
mmcv.ops | mmcv/_ext.so: undefined symbol: _ZN3c1 | MMCV_WITH_OPS=1 .* --no-binary mmcv .*mmcv<2.2
mmcv.ops | No module named 'mmcv._ext' | MMCV_WITH_OPS=1
mmcv.ops | No module named 'addict' | pip install addict$
mmdet | AssertionError: MMCV==2.2.0 is used but incompatible. | MMCV_WITH_OPS=1
mmengine | No module named 'pkg_resources' | pip install 'setuptools<81'$
mmengine | No module named 'cv2' | pip install opencv-python$
mmdet | SyntaxError: invalid syntax | --force-reinstall --no-deps mmdet==3.3$
mmparc.ops | RuntimeError: fft on cpu: ... | --force-reinstall --no-deps mmparc==0.1$
torch | OSError: libtorch.so | --no-deps torch==2.12.1.cpu --index-url .* cpu builds$
torchvision | no torchvision | uninstall -y torchvision && .* torch==2.12.1.cpu --index.* cpu build
cv2 | libGL.so.1: cannot open | ^sudo apt-get update && sudo apt-get install -y libgl1$
cv2 | libgthread-2.0.so.0: cannot open | install -y libglib2.0-0$
cv2 | libxcb.so.1: cannot open | install -y libxcb1$
"""


@pytest.mark.parametrize('line', ERRORS.strip().splitlines())
def test_what_mends_an_error(line: str, doctor: ModuleType, monkeypatch, tmp_path: Path) -> None:
    probe, error, fix = line.split(' | ')
    versions = {'torch': '2.12.1+cpu', 'mmdet': '3.3', 'mmparc': '0.1', 'torchvision': '0.27'}
    monkeypatch.setattr(doctor, 'version_of', lambda name: versions.get(name, ''))
    monkeypatch.setattr(doctor, 'HOME', tmp_path)
    monkeypatch.setattr(doctor.sys, 'version_info', (3, 12))
    said = doctor.mend_error(doctor.PROBES[probe], error, {'setuptools': '<81', 'mmcv': '<2.2'})
    assert re.search(fix, said) and '\n' not in said


def test_crashes_and_hangs_are_seen(empty: Environment) -> None:
    """What comes after is tried all the same, if it does not need what crashed."""
    for name in ('numpy', 'opencv-python', 'pycocotools', 'torch', 'mmengine', 'setuptools'):
        empty.distribution(name, '5.0.0')
    empty.write('numpy.py', 'class ones:\n def __init__(*_): 0\n def __matmul__(*_): 0\n')
    empty.write('cv2.py', 'import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n')
    empty.write('pycocotools/mask.py', 'import os; print("noise"); os._exit(7)\n')
    empty.write('torch.py', 'import time; time.sleep(60)\n')
    empty.write('pkg_resources.py', 'raise SystemExit("gone")\n')
    empty.tool.write_text(empty.tool.read_text().replace('SECONDS = 300', 'SECONDS = 2'))
    said = empty.run()
    line = the(said, 'cv2')
    assert (line.mark, line.text) == ('BROKEN', 'crashes with SIGSEGV')
    assert ' --force-reinstall --no-deps opencv-python==5.0.0' in line.fix
    assert the(said, 'numpy', last=True).mark == 'ok'
    texts = {'pycocotools': 'exit code 7', 'torch': 'hangs', 'pkg_resources': 'gone'}
    for name, text in texts.items():
        line = the(said, name, last=True)
        assert line.mark == 'BROKEN' and text in line.text and line.fix
    assert the(said, 'mmengine', last=True)[::2] == ('note', 'not tried: it needs torch')


@pytest.mark.slow
@pytest.mark.parametrize(
    'extension, text',
    [
        ('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)', 'SIGSEGV'),
        (None, "No module named 'mmcv._ext'"),
    ],
    ids=['crash', 'no ops'],
)
def test_ops_of_mmcv(extension: str | None, text: str, tmp_path: Path) -> None:
    """All real packages; mmcv's compiled module is another."""
    environment = Environment(tmp_path / 'env')
    mmcv = environment.site / 'mmcv'
    real = mmcv.resolve()
    mmcv.unlink()
    mmcv.mkdir()
    for entry in real.iterdir():
        if not entry.name.startswith('_ext'):
            (mmcv / entry.name).symlink_to(entry)
    if extension:
        environment.write('mmcv/_ext.py', extension)
    said = environment.run()
    (line,) = [line for line in lines_of(said) if line.mark == 'BROKEN']
    assert line.name == 'mmcv.ops' and text in line.text
    assert 'MMCV_WITH_OPS=1' in line.fix or sys.version_info >= (3, 13)
    for name, mark in (('torch', 'ok'), ('mmengine', 'ok'), ('mmdet', 'note'), ('mmseg', 'note')):
        assert the(said, name, last=True).mark == mark


@pytest.mark.slow
def test_what_mmseg_forgets_to_ask_for(tmp_path: Path) -> None:
    said = Environment(tmp_path / 'env', without=('ftfy', 'mmdet', 'mmpretrain')).run()
    for name, text in (('ftfy', 'not installed'), ('mmseg', "No module named 'ftfy'")):
        line = the(said, name)
        assert line.mark == 'BROKEN' and text in line.text
        assert line.fix.endswith(' pip install ftfy')


def test_a_wrong_parc_is_seen(doctor: ModuleType, monkeypatch) -> None:
    right = ops.parc
    exec(doctor.PARC, {})

    def wrong(x, weight, *args, **kwargs):
        return right(x, weight.roll(1, dims=-1), *args, **kwargs)

    monkeypatch.setattr(ops, 'parc', wrong)
    with pytest.raises(RuntimeError, match='direct on cpu: relative error'):
        exec(doctor.PARC, {})


# Devices


@pytest.mark.parametrize(
    'gpu, built, nvcc, mark, text, fix',
    [
        ('H200', '13.0', [], 'ok', 'CUDA 13', ''),
        ('H200', 'none', ['13.1'], 'warn', 'detection runs on the CPU', 'MMCV_WITH_OPS=1'),
        ('H200', 'none', ['12.8'], 'warn', 'detection runs on the CPU', '(here: 12.8), set CUDA'),
        ('H200', '12.8', [], 'warn', 'built with CUDA 12.8, torch with 13.0', 'nvcc of CUDA 13'),
        ('none', 'none', [], 'note', 'everything runs on the CPU', ''),
    ],
)
def test_gpus(gpu, built, nvcc, mark, text, fix, doctor, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(doctor, 'toolkits', lambda: nvcc)
    monkeypatch.setattr(doctor, 'HOME', tmp_path)
    monkeypatch.setattr(doctor.sys, 'version_info', (3, 12))
    doctor.check_gpus({'CUDA': '13.0', 'GPU': gpu}, {'built with CUDA': built}, '<2.2')
    line = the(capsys.readouterr().out, 'GPU')
    assert line.mark == mark and text in line.text
    assert fix in line.fix and bool(fix) == bool(line.fix)
    assert ('set CUDA_HOME' in line.fix) == (mark == 'warn' and nvcc != ['13.1'])


def test_toolkits_count_with_their_headers(doctor, tmp_path: Path, monkeypatch) -> None:
    nvcc = tmp_path / 'bin' / 'nvcc'
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\necho "Cuda compilation tools, release 12.4, V12.4.1"\n')
    nvcc.chmod(0o755)
    monkeypatch.setenv('CUDA_HOME', str(tmp_path))
    assert '12.4' not in doctor.toolkits()
    (tmp_path / 'include').mkdir()
    (tmp_path / 'include' / 'cuda_runtime.h').touch()
    assert '12.4' in doctor.toolkits()


# Data sets

BIG = ['ImageNet-1k', 'COCO 2017', 'ADE20K', 'VOC 2012 + aug']
FEW = 3  # of everything, where thousands are published


@pytest.fixture
def look(doctor: ModuleType, monkeypatch, capsys, tmp_path: Path):
    """Looks at the data in tmp_path; gives a data set's line."""
    for name, (place, parts) in doctor.DATA.items():
        few = {pattern: min(FEW, published) for pattern, published in parts.items()}
        monkeypatch.setitem(doctor.DATA, name, (place, few))

    def at(name: str) -> Line:
        doctor.check_data(tmp_path)
        return the(capsys.readouterr().out, name)

    return at


@pytest.mark.parametrize('name', BIG)
def test_data_sets(name: str, look, doctor: ModuleType, tmp_path: Path) -> None:
    assert look(name)[0::2] == ('note', f'not in {tmp_path / doctor.DATA[name][0]}')
    place, parts = doctor.DATA[name]
    files = {
        pattern: [tmp_path / place / pattern.replace('*', str(i)) for i in range(published)]
        for pattern, published in parts.items()
    }
    for paths in files.values():
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert (look(name).mark, look(name).fix) == ('ok', '')
    for pattern, paths in files.items():
        paths[-1].unlink()
        line = look(name)
        assert (line.mark, line.fix) == ('warn', "see docs/guide/data.md in mmparc's repository")
        assert line.text.endswith(f': {len(paths) - 1} of {len(paths)} {pattern}')
        paths[-1].touch()
    shutil.rmtree(tmp_path / place)
    (tmp_path / place).write_text('a file, where a folder should be')
    assert look(name).mark == 'note'


def test_imagenet_without_folders_a_class(look, tmp_path: Path) -> None:
    """As its validation images are unpacked; a list in meta/ then gives the classes."""
    folder = tmp_path / 'imagenet'
    for i in range(FEW):
        for path in (folder / 'train' / f'n{i}' / 'x.JPEG', folder / 'val' / f'{i}.JPEG'):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert look('ImageNet-1k').text.endswith(': 0 of 3 val/*/*.*')
    (folder / 'meta').mkdir()
    (folder / 'meta' / 'val.txt').touch()
    assert look('ImageNet-1k').mark == 'ok'
    (folder / 'val' / '0.JPEG').unlink()
    assert look('ImageNet-1k').text.endswith(': 2 of 3 val/*/*.*')


def test_small_data(look, tmp_path: Path) -> None:
    assert look('small seg').fix.endswith(f' mmparc make_tiny_data --out {tmp_path}/tiny')
    folder = make_tiny_data(tmp_path / 'tiny', 'seg', train=2, val=1, size=(64, 96))
    assert look('small seg').mark == 'ok'
    next(folder.glob('images/training/*.jpg')).unlink()
    line = look('small seg')
    assert line.mark == 'warn' and line.text.endswith(': 7 of 8 files')
    assert line.fix.startswith(f'rm -r {folder} && ')
    (folder / 'manifest.json').write_text(json.dumps('something else'))
    assert look('small seg').text.endswith(': no manifest.json')


CONFIGS = """
cls/convnext/parc-convnext-xt_32xb128_in1k.py
det/convnext/mask-rcnn_parc-convnext-xt_fpn_1x_coco.py
seg/convnext/parc-convnext-xt_upernet_8xb2-amp-160k_ade20k-512x512.py
seg/parcnet/parcnet-s-d16_deeplabv3_4xb32-50e_voc12aug-512x512.py
"""


@pytest.mark.parametrize('config', CONFIGS.split())
def test_what_configs_name_is_looked_at(config: str, doctor: ModuleType) -> None:
    cfg = Config.fromfile(ROOT / 'configs' / config)
    known = [f'data/{place}/{part}' for place, parts in doctor.DATA.values() for part in parts]
    for key in ('train_dataloader', 'val_dataloader'):
        for dataset in datasets_of(cfg[key]):
            prefix = dataset.get('data_prefix') or dataset.get('split')
            named = [*prefix.values()] if isinstance(prefix, dict) else [prefix]
            named += [dataset['ann_file']] if dataset.get('ann_file') else []
            for name in named:
                path = Path(dataset['data_root'], name).as_posix()
                assert any(part == path or part.startswith(f'{path}/') for part in known), path
    assert not any(part.startswith('data/coco/test2017') for part in known)  # control
