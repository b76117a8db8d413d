"""tools/doctor.py: no complaint where all is well; for each problem its mark and its fix.

Problems are tried in a Python of their own, whose packages are small fakes.
"""

import re
import runpy
import subprocess
import venv
from importlib import metadata
from pathlib import Path

import pytest
from helpers import ROOT, run_tool, tool_environment
from packaging.requirements import Requirement

from mmparc import ops
from mmparc.datasets import make_toy_data

tomllib = pytest.importorskip('tomllib')  # Python 3.10 has none

TOOL = ROOT / 'tools' / 'doctor.py'
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
EXTRAS = {'': PROJECT['dependencies'], **PROJECT['optional-dependencies']}
RANGES = {need.name: need.specifier for need in map(Requirement, EXTRAS[''] + EXTRAS['mm'])}
MM = {'mmengine': '0.10.7', 'mmcv-lite': '2.1.0', 'mmdet': '3.3.0', 'mmsegmentation': '1.2.2'}
VERSIONS = {**dict.fromkeys([*RANGES, 'numpy'], '3.0'), **MM, 'mmpretrain': '1.2.0'}

TORCH = """
import sys
from unittest.mock import MagicMock
sys.modules['torch'] = torch = MagicMock()
torch.cuda.is_available.return_value, torch.version.cuda = False, '13.0'
"""
NMS = 'from unittest.mock import Mock\nnms = lambda *_: Mock(tolist=lambda: [1, 2])'
MMCV = """
import mmcv._ext, torchvision.ops
nms = lambda *args: (0, torchvision.ops.nms(*args))
get_compiling_cuda_version = lambda: 'not available'
"""
EMPTY = 'cv2 pkg_resources mmengine/runner mmparc/models pycocotools/mask mmpretrain/apis'
FAKES = {f'{name}.py': '' for name in f'{EMPTY} mmdet/apis mmseg/apis mmseg/utils'.split()} | {
    'torch.py': TORCH,
    'torchvision/ops.py': NMS,
    'numpy.py': 'def ones(n): return n',
    'mmparc/ops.py': 'BACKENDS, parc, parc_reference = (), None, None',
    'mmcv/ops.py': MMCV,
    'mmcv/_ext.py': "__file__ = 'mmparc/mmcv_ops.py'",
}


class Environment:
    """A Python with fake packages, in which all is well, on a computer without a GPU."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / 'bin' / 'python'
        (self.site,) = folder.glob('lib/python*/site-packages')
        self.write(FAKES)
        needs = [f'{line}; extra == "{extra}"' for extra in EXTRAS for line in EXTRAS[extra]]
        needs = ''.join('\nRequires-Dist: ' + line.removesuffix('; extra == ""') for line in needs)
        self.install({'mmparc': f'0.1.0{needs}', **VERSIONS})

    def write(self, files: dict[str, str]) -> None:
        for name, content in files.items():
            (self.site / name).parent.mkdir(exist_ok=True)
            (self.site / name).write_text(content)
            (self.site / name).chmod(0o755)

    def install(self, versions: dict[str, str | None]) -> None:
        """Write the metadata of packages; for None take them away, though not their folder."""
        for name, version in versions.items():
            self.write({f'{name}-0.dist-info/METADATA': f'Name: {name}\nVersion: {version}\n'})
            if version is None:
                (self.site / f'{name}-0.dist-info' / 'METADATA').unlink()

    def run(self) -> list[tuple[str, str, str, str]]:
        """Of each line the mark, the name, the text and the fix."""
        env = {**tool_environment(), 'PYTHONPATH': '', 'PATH': str(self.python.parent)}
        env['CUDA_VISIBLE_DEVICES'] = '0'
        command = [self.python, TOOL]
        result = subprocess.run(command, env=env, cwd=self.site, capture_output=True, text=True)
        pattern = r'^  (ok|note|warn|BROKEN) +(not tried|\S+) +(.*)\n(?: {10}fix: (.*))?'
        lines = re.findall(pattern, result.stdout, re.M)
        assert result.stderr == ''
        assert result.returncode == any(mark == 'BROKEN' for mark, *_ in lines), result.stdout
        return lines


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / 'env')


def test_this_environment(tmp_path: Path) -> None:
    result = run_tool(TOOL, cwd=tmp_path, fresh=True)
    assert (result.returncode, result.stderr) == (0, ''), result.stdout + result.stderr
    assert result.stdout.endswith('0 BROKEN, 0 warn\n')
    for name in RANGES.keys() - {'mmcv-lite'}:
        assert re.search(rf'ok +{name} .*{re.escape(metadata.version(name))} ', result.stdout)
    assert f'{", ".join(ops.BACKENDS)} are right on cpu\n' in result.stdout


def test_versions_are_compared_as_by_packaging(environment: Environment) -> None:
    for version in ('0.10.4', '0.10.5', '1.2.2', '2.0.1+cu118', '2.1', '2.2.0', '3.3.0', '81.0.1'):
        environment.install(dict.fromkeys(RANGES, version))
        lines = {name: (mark, fix) for mark, name, _, fix in reversed(environment.run())}
        for name, wanted in RANGES.items():
            mark, fix = lines[name]
            assert (mark != 'BROKEN') == wanted.contains(version), (name, version)
            assert mark != 'BROKEN' or f"-m pip install '{name}" in fix


def test_missing_packages(environment: Environment) -> None:
    environment.install(dict.fromkeys(VERSIONS))
    lines = environment.run()
    assert {line[1] for line in lines if line[0] == 'BROKEN'} == set(VERSIONS)
    assert [line[0] for line in lines if line[3].endswith("-m pip install 'timm'")] == ['note']


COMPILED = {'mmcv/_ext.py': ''}
ONLY_MMCV = {'mmcv': '2.1.0', 'mmcv-lite': None}
GPU = {'torch.py': TORCH.replace('False', 'True')}
SMI = {'../../../bin/nvidia-smi': '#!/bin/sh\necho "GPU 0: NVIDIA H200 (UUID: GPU-1)"'}
TO_LITE = "uninstall -y mmcv && .* install 'mmcv-lite.*<2.2'"
CASES = [  # what is installed, what files hold, the mark, what the line and its fix say
    ({}, {}, 'ok', "^mmparc's operators, on torchvision; nms is right on cpu"),
    (ONLY_MMCV, COMPILED, 'ok', '^compiled operators, CUDA not available; nms is right on cpu'),
    ({'mmcv': '2.2.0', 'mmcv-lite': None}, {}, 'BROKEN', TO_LITE),
    ({'onedl-mmdetection': '3.5'}, {}, 'BROKEN', 'uninstall -y mmdet onedl-mmdetection && .*'),
    ({'mmparc': None}, {}, 'BROKEN', 'make env && . .venv/bin/activate'),
    ({}, {'mmdet/apis.py': '1 / 0'}, 'BROKEN', '^ZeroDivision.*-y mmdet .* mmdet==3.3.0$'),
    ({}, {'cv2.py': 'import os; os.abort()'}, 'BROKEN', 'SIGABRT.* opencv-python==3.0$'),
    ({}, {'cv2.py': 'raise ImportError("libGL.so.1")'}, 'BROKEN', 'apt-get install -y libgl1$'),
    ({}, {'torchvision/ops.py': NMS[:-3] + '0])'}, 'BROKEN', '^nms on cpu.* torchvision torch=='),
    ({}, SMI, 'warn', '^CUDA 13.0; devices: cpu update the NVIDIA driver: .* needs CUDA 13.0$'),
    ({}, {**GPU, **SMI}, 'ok', 'nms is right on cpu, cuda$'),
    (ONLY_MMCV, {**GPU, **SMI, **COMPILED}, 'warn', f'^compiled.* right on cpu .*{TO_LITE}'),
]


@pytest.mark.parametrize('versions, files, mark, pattern', CASES)
def test_one_problem_at_a_time(versions, files, mark, pattern, environment) -> None:
    environment.install(versions)
    environment.write(files)
    lines = environment.run()
    wrong = [line for line in lines if line[0] in ('warn', 'BROKEN')]
    assert [line[0] for line in wrong] == [mark] * (mark != 'ok')
    assert any(re.search(pattern, ' '.join(line[2:]).strip()) for line in wrong or lines)


def test_a_wrong_parc_is_seen(monkeypatch) -> None:
    code = f'import sys, torch\ndevices = ["cpu"]\n{runpy.run_path(str(TOOL))["PARC"]}'
    exec(code, {})
    right = ops.parc
    monkeypatch.setattr(ops, 'parc', lambda x, w, *a, **kw: right(x, w.roll(1, -1), *a, **kw))
    with pytest.raises(SystemExit, match='direct on cpu'):
        exec(code, {})


def test_data_sets(tmp_path: Path) -> None:
    doctor = runpy.run_path(str(TOOL))

    def look(place: str) -> str:
        doctor['said'].clear()
        doctor['check_data'](str(tmp_path))
        return {name: mark for mark, name in doctor['said']}[place]

    assert look('toy/cls') == look('coco') == 'note'
    make_toy_data(tmp_path / 'toy', 'cls', train=2, val=1, size=(64, 96))
    assert look('toy/cls') == 'ok'
    (tmp_path / 'toy/cls/preview.png').unlink()
    assert look('toy/cls') == 'warn'
    for pattern in doctor['DATA']['coco']:
        doctor['DATA']['coco'][pattern] = 1
        path = tmp_path / 'coco' / pattern.replace('*', 'x')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert look('coco') == 'ok'
    path.unlink()
    assert look('coco') == 'warn'
