"""The wheel as a user has it: built and installed by README's commands, and run in an empty folder.

It is built from a copy of the tree without .git, together with what must not get into it. README's
commands run in an empty environment that gets it, and its packages from the index, by README's
command; the other tests put it into a folder that comes before any other mmparc on the path.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from packaging.requirements import Requirement
from pages import blocks
from test_readme import COMMANDS, README, kind

from mmparc.datasets import make_toy_data

pytestmark = pytest.mark.slow

PIP, MODULE = 'pip ', 'python -m mmparc '
INSTALLED = [command for command in COMMANDS if kind(command) == 'installed']
BUILD, INSTALL = (command for command in INSTALLED if command.startswith(PIP))
SWAP, SURGERY = ((ROOT / f'docs/guide/{page}.md').read_text() for page in ('swap', 'surgery'))
DETECTOR = 'mmparc::det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py'
# What a build must leave out: what work leaves behind, and what an earlier build did.
LITTER = (
    'mmparc/__pycache__/home.cpython-311.pyc',
    'configs/cls/__pycache__/x.cpython-311.pyc',
    'configs/det/convnext/notes.txt',
    'tools/__pycache__/train.cpython-311.pyc',
    'work_dirs/det/x/epoch_1.pth',
    'data/toy/det/x.py',
    'build/lib/mmparc/gone.py',
    'build/lib/mmparc/.mim/configs/gone.py',
)
OF_A_CHECKOUT = {'tools/make_env.sh', 'tools/try_stacks.py', 'tools/demo.sh'}


def tracked() -> list[str]:
    """The files of the tree, those included that git has not been told of but does not ignore."""
    command = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split('\0') if name and (ROOT / name).is_file()]


def expected_files() -> list[str]:
    package = [name for name in tracked() if name.startswith('mmparc/')]
    carried = [name for name in tracked() if name.startswith(('configs/', 'tools/'))]
    carried = [name for name in [*carried, 'model-index.yml'] if name not in OF_A_CHECKOUT]
    return sorted([*package, *(f'mmparc/.mim/{name}' for name in carried)])


def files_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name for name in archive.namelist() if '.dist-info/' not in name)


def run(
    command: list, cwd: Path, path: Path | None = None, status: int = 0, **settings: str
) -> str:
    """Run a command with one folder, or none, on Python's path; what it printed."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **settings}
    environment.pop('PYTHONPATH', None)
    if path:
        environment['PYTHONPATH'] = str(path)
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert result.returncode == status, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stderr if status else result.stdout


def pip(command: str, *options: object, cwd: Path) -> None:
    """README's command with options that keep it off the network and out of this environment."""
    words = [sys.executable, '-m', *shlex.split(command), '--no-deps', '--no-index', *options]
    run(words, cwd)


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('tree')
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope='module')
def installed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed into, by the README's two commands of pip."""
    for name in LITTER:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    pip(BUILD, '--no-build-isolation', cwd=tree)
    folder = tmp_path_factory.mktemp('installed')
    pip(INSTALL, '--target', folder, cwd=tree)
    return folder


@pytest.fixture(scope='module')
def empty(wheel: Path, tree: Path) -> Iterator[Path]:
    """An environment that holds what README's command installs, where there is no compiler.

    A temporary folder, because pytest would keep its 5 GB.
    """
    with tempfile.TemporaryDirectory() as folder:
        run([sys._base_executable, '-m', 'venv', folder], tree)
        pinned = ['--no-compile', '-c', ROOT / 'requirements/constraints.txt']
        path = f'{folder}/bin'
        assert not [name for name in ('cc', 'c++', 'gcc', 'nvcc') if shutil.which(name, path=path)]
        run([f'{path}/python', '-m', *shlex.split(INSTALL), *pinned], tree, PATH=path)
        yield Path(folder)


@pytest.fixture
def mmparc(installed: Path, tmp_path: Path):
    """Runs `python -m mmparc` of the installed wheel in an empty folder; gives what it printed."""

    def call(*args: object, status: int = 0, launcher: tuple = ()) -> str:
        command = [sys.executable, *launcher, '-m', 'mmparc', *args]
        return run(command, tmp_path, installed, status)

    return call


@pytest.fixture(scope='module')
def wheel(installed: Path, tree: Path) -> Path:
    (path,) = tree.glob('dist/*.whl')
    return path


def block_of(page: str, file: str) -> str:
    """The code that a page of the guide saves as this file."""
    (block,) = (block for block in blocks(page, 'python') if block.startswith(f'# {file}\n'))
    return block


# What is in it


def test_files_are_the_trees(wheel: Path) -> None:
    found, expected = files_of(wheel), expected_files()
    assert found == expected
    for name in ('mmparc/ops/auto_table.json', 'mmparc/.mim/tools/train.py'):
        assert name in found
    # the control: there was something to leave out; what an earlier build left is gone
    left = {name for name in (*LITTER, *OF_A_CHECKOUT) if (wheel.parents[1] / name).is_file()}
    assert left == {name for name in (*LITTER, *OF_A_CHECKOUT) if not name.startswith('build/')}


def test_sdist_builds_the_same_wheel(wheel: Path, tree: Path, tmp_path: Path) -> None:
    build = f'from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})'
    run([sys.executable, '-c', build], tree)
    (sdist,) = tmp_path.glob('*.tar.gz')
    pip(BUILD.removesuffix(' .'), '--no-build-isolation', sdist, cwd=tmp_path)
    (again,) = tmp_path.glob('dist/*.whl')
    assert files_of(again) == files_of(wheel)
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert {'README.md', 'LICENSE', 'pyproject.toml', 'setup.py'} <= names
    assert not [name for name in names if name.startswith('tests/') or name.endswith('.pyc')]


def test_an_editable_install_uses_the_checkout(tree: Path, tmp_path: Path) -> None:
    build = f'from setuptools.build_meta import build_editable; build_editable({str(tmp_path)!r})'
    run([sys.executable, '-c', build], tree)
    (editable,) = tmp_path.glob('*.whl')
    assert [name for name in files_of(editable) if '.mim' in name] == []
    assert not (tree / 'mmparc/.mim').exists()


def test_tools_keep_their_run_bit(installed: Path) -> None:
    folder = installed / 'mmparc/.mim/tools'
    tools = [path for path in folder.rglob('*') if path.suffix in ('.py', '.sh')]
    assert len(tools) >= 10 and all(os.access(path, os.X_OK) for path in tools)
    assert not os.access(installed / 'mmparc/home.py', os.X_OK)


def test_it_needs_torch_alone(installed: Path) -> None:
    (metadata,) = installed.glob('mmparc-*.dist-info/METADATA')
    needs = [line for line in metadata.read_text().splitlines() if line.startswith('Requires-Dist')]
    assert [line for line in needs if 'extra ==' not in line] == ['Requires-Dist: torch>=2.1']
    extra = [Requirement(line.partition(': ')[2]) for line in needs if '"mm"' in line]
    names = {requirement.name for requirement in extra}
    # the compiled mmcv would need a compiler, and overwrite mmcv-lite's folder
    assert {'mmcv-lite', 'mmdet'} <= names and 'mmcv' not in names


# That it runs


def test_it_is_the_wheels_copy_that_runs(installed: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        '-c',
        'import mmparc, mmparc.home as h; print(mmparc.__file__, h.home())',
    ]
    package = installed / 'mmparc'
    assert run(command, tmp_path, installed).split() == [
        str(package / '__init__.py'),
        str(package / '.mim'),
    ]
    # the control: the same from the checkout
    said = run(command, tmp_path, ROOT)
    assert said.split() == [str(ROOT / 'mmparc/__init__.py'), str(ROOT)]


def test_without_its_configs_and_tools_it_says_so(installed: Path, tmp_path: Path) -> None:
    """The control of all that follows: nothing is found in another place."""
    ignored = shutil.ignore_patterns('.mim')
    shutil.copytree(installed / 'mmparc', tmp_path / 'bare/mmparc', ignore=ignored)
    said = run([sys.executable, '-m', 'mmparc', 'train'], tmp_path, tmp_path / 'bare', status=1)
    assert said.startswith("error: mmparc's configs and tools are neither in ")
    assert said.count('\n') == 1


@pytest.mark.timeout(1800)  # it downloads 3 GB
def test_commands_of_the_readme(empty: Path, tmp_path: Path) -> None:
    """In their order, with few images and one epoch; once with workers that import the tool again.

    A line that the README gains is run too: what shortens it goes into ``appended``, what it writes
    into the last assertion but one.
    """
    (packages,) = empty.glob('lib/python*/site-packages')

    def mmparc(*args: object, launcher: tuple = ()) -> str:
        command = [empty / 'bin/python', *launcher, '-m', 'mmparc', *args]
        return run(command, tmp_path, PATH=f'{empty}/bin')

    spawn = 'env_cfg.mp_cfg.mp_start_method=spawn'
    appended = {
        'make_toy_data': ['--train', 16, '--val', 8],
        'train': ['--cfg-options', 'train_dataloader.batch_size=8', 'train_cfg.max_epochs=1'],
        'swap_backbone': ['--shape', 128, 160],
    }
    (tmp_path / 'new_small.py').write_text(block_of(SWAP, 'new_small.py'))
    said: dict[str, str] = {}
    for command in INSTALLED:
        if command.startswith(MODULE):
            name, *args = shlex.split(command.removeprefix(MODULE))
            args += appended.get(name, [])
            args += [spawn] if name == 'train' and name not in said else []
            said[name] = said.get(name, '') + mmparc(name, *args)
    assert '7,412,824' in said['analysis/get_flops']
    assert "mp_start_method='spawn'" in said['train']
    checkpoint = Path('work_dirs/det', Path(DETECTOR).stem, 'epoch_1.pth')
    assert (tmp_path / checkpoint).is_file()
    swapped = torch.load(tmp_path / 'work_dirs/det/new_small/epoch_1.pth', weights_only=False)
    assert sum(name.endswith('conv_h.weight') for name in swapped['state_dict']) == 4

    # a detector was evaluated, and its NMS was that of our operators
    assert "type='nms'" in said['train'] and 'coco/bbox_mAP_50: ' in said['train']
    code = 'import sys, mmparc, mmcv.ops; print(sys.modules["mmcv._ext"].__file__)'
    used = run([empty / 'bin/python', '-c', code], tmp_path, PATH=f'{empty}/bin')
    assert Path(used.strip()) == packages / 'mmparc/mmcv_ops.py'

    # as torchrun starts it; and short for analysis/plot_curves
    torchrun = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=1')
    tested = mmparc('test', DETECTOR, checkpoint, '--work-dir', 'test', launcher=torchrun)
    assert 'coco/bbox_mAP_50' in tested
    mmparc('plot_curves', checkpoint.parent)
    assert (tmp_path / checkpoint.with_name('curves.png')).is_file()
    # what was written lies in the folder of the user
    written = {'data', 'work_dirs', 'test', 'new.py', 'new_small.py'}
    assert {path.name for path in tmp_path.iterdir()} == written
    left = [path for path in (packages / 'mmparc/.mim').rglob('*') if path.suffix == '.pth']
    assert left == []


def test_surgery(mmparc, tmp_path: Path) -> None:
    """The guide's detector with ParC inside its own backbone, on the small data."""
    (tmp_path / 'det.py').write_text(block_of(SURGERY, 'det.py'))
    small = block_of(SWAP, 'new_small.py').replace('./new.py', './det.py')
    (tmp_path / 'det_small.py').write_text(small)
    data = make_toy_data(tmp_path / 'data', 'det', train=4, val=2)
    options = ['--cfg-options', f'data_root={data}', 'train_cfg.max_epochs=1']
    mmparc('train', 'det_small.py', '--no-pretrained', *options)
    trained = torch.load(tmp_path / 'work_dirs/det/det_small/epoch_1.pth', weights_only=False)
    exchanged = [name for name in trained['state_dict'] if name.endswith('conv_h.weight')]
    assert exchanged == [
        f'backbone.{block}.conv2.conv_h.weight' for block in ('layer3.4', 'layer3.5', 'layer4.2')
    ]


def test_lists_the_tools(mmparc) -> None:
    said = mmparc()
    for name in ('train', 'test', 'make_toy_data', 'convert_official', 'analysis/get_flops'):
        assert f'\n  {name} ' in said
    assert 'make_env' not in said


def test_a_hint_names_what_is_installed(mmparc) -> None:
    said = mmparc('train', DETECTOR.replace('mmparc::', 'configs/'), status=1)
    assert f"did you mean '{DETECTOR}'?" in said and said.count('\n') == 1


def test_an_upstream_config_takes_an_installed_backbone(installed: Path, tmp_path: Path) -> None:
    code = """
import mmparc  # before mmdet: mmcv gets its operators from it
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

cfg = Config.fromfile('mine.py')
with DefaultScope.overwrite_default_scope(cfg.default_scope):
    print(MODELS.build(cfg.model).backbone.__class__.__module__)
print(mmparc.__file__)
"""
    (block,) = [block for block in blocks(README, 'python') if '_base_' in block]
    (tmp_path / 'mine.py').write_text(block)
    said = run([sys.executable, '-W', 'ignore', '-c', code], tmp_path, installed).split()
    expected = ['mmparc.models.backbones.parc_convnext', str(installed / 'mmparc/__init__.py')]
    assert said[-2:] == expected
