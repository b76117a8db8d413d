"""The wheel: what is in it, and that it runs where nothing else of mmparc is.

It is built from a copy of the tree without .git, together with files that must not get into it.
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
from helpers import ROOT
from packaging.requirements import Requirement
from pages import blocks_of, commands_of

COMMANDS = commands_of((ROOT / 'README.md').read_text())
(BUILD,) = (command for command in COMMANDS if command.startswith('pip wheel '))
(INSTALL,) = (command for command in COMMANDS if command.startswith('pip install '))
MODULE = 'python -m mmparc '
# Left behind by work and by an earlier build.
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
    """The files of the tree, also those that are new and not ignored by git."""
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
    """README's command, kept off the network and out of this environment."""
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
def wheel(tree: Path) -> Path:
    for name in LITTER:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    pip(BUILD, '--no-build-isolation', cwd=tree)
    (path,) = tree.glob('dist/*.whl')
    return path


@pytest.fixture(scope='module')
def installed(wheel: Path, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('installed')
    pip(INSTALL, '--target', folder, '--no-compile', cwd=tree)
    return folder


def test_files_are_the_trees(wheel: Path) -> None:
    found = files_of(wheel)
    assert found == expected_files() and 'mmparc/.mim/tools/train.py' in found
    # the control: there was something to leave out; what an earlier build left is gone
    left = {name for name in (*LITTER, *OF_A_CHECKOUT) if (wheel.parents[1] / name).is_file()}
    assert left == {name for name in (*LITTER, *OF_A_CHECKOUT) if not name.startswith('build/')}


def test_what_is_installed(installed: Path) -> None:
    folder = installed / 'mmparc/.mim/tools'
    tools = [path for path in folder.rglob('*') if path.suffix in ('.py', '.sh')]
    assert len(tools) >= 10 and all(os.access(path, os.X_OK) for path in tools)
    assert not os.access(installed / 'mmparc/home.py', os.X_OK)
    (metadata,) = installed.glob('mmparc-*.dist-info/METADATA')
    needs = [line for line in metadata.read_text().splitlines() if line.startswith('Requires-Dist')]
    assert [line for line in needs if 'extra ==' not in line] == ['Requires-Dist: torch>=2.1']
    extra = [Requirement(line.partition(': ')[2]) for line in needs if '"mm"' in line]
    names = {requirement.name for requirement in extra}
    # the compiled mmcv would need a compiler, and overwrite mmcv-lite's folder
    assert {'mmcv-lite', 'mmdet'} <= names and 'mmcv' not in names


def test_the_installed_copy_runs(installed: Path, tmp_path: Path) -> None:
    code = 'import mmparc, mmparc.home as h; print(mmparc.__file__, h.home())'
    for path, home in ((installed, installed / 'mmparc/.mim'), (ROOT, ROOT)):  # and the control
        printed = run([sys.executable, '-c', code], tmp_path, path).split()
        assert printed == [str(path / 'mmparc/__init__.py'), str(home)]
    command = [sys.executable, '-m', 'mmparc']
    listed = run(command, tmp_path, installed)
    assert '\n  train ' in listed and 'make_env' not in listed
    # without configs and tools one line, so that nothing was found in another place
    ignored = shutil.ignore_patterns('.mim')
    shutil.copytree(installed / 'mmparc', tmp_path / 'bare/mmparc', ignore=ignored)
    error = run([*command, 'train'], tmp_path, tmp_path / 'bare', status=1)
    assert error.startswith('error: ') and error.count('\n') == 1


@pytest.mark.full
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


@pytest.fixture(scope='module')
def empty(wheel: Path, tree: Path) -> Iterator[Path]:
    """An environment with the packages that README's command installs, without a compiler.

    A temporary folder, because pytest would keep its 5 GB.
    """
    with tempfile.TemporaryDirectory() as folder:
        run([Path(sys.base_prefix, 'bin/python3'), '-m', 'venv', folder], tree)
        pinned = ['--no-compile', '-c', ROOT / 'requirements/constraints.txt']
        path = f'{folder}/bin'
        assert not [name for name in ('cc', 'c++', 'gcc', 'nvcc') if shutil.which(name, path=path)]
        run([f'{path}/python', '-m', *shlex.split(INSTALL), *pinned], tree, PATH=path)
        yield Path(folder)


@pytest.mark.full
@pytest.mark.timeout(1800)  # it downloads 3 GB
def test_commands_of_the_readme(empty: Path, tmp_path: Path) -> None:
    """In their order, with few images and one epoch; training's workers import the tool again."""
    (packages,) = empty.glob('lib/python*/site-packages')
    train = ['train_dataloader.batch_size=8', 'train_cfg.max_epochs=1']
    appended = {
        'make_toy_data': ['--train', 16, '--val', 8],
        'train': ['--cfg-options', *train, 'env_cfg.mp_cfg.mp_start_method=spawn'],
        'swap_backbone': ['--shape', 128, 160],
    }
    swap = blocks_of((ROOT / 'docs/guide/swap.md').read_text())
    (small,) = (text for _, text in swap if text.startswith('# new_small.py\n'))
    (tmp_path / 'new_small.py').write_text(small)
    printed: dict[str, str] = {}
    for command in COMMANDS:
        if command.startswith(MODULE):
            name, *args = shlex.split(command.removeprefix(MODULE))
            command = [empty / 'bin/python', '-m', 'mmparc', name, *args, *appended.get(name, [])]
            said = run(command, tmp_path, PATH=f'{empty}/bin')
            printed[name] = printed.get(name, '') + said
    assert '7,412,824' in printed['analysis/get_flops']
    assert "mp_start_method='spawn'" in printed['train']
    # a detector was evaluated, and its NMS was that of our operators
    assert "type='nms'" in printed['train'] and 'coco/bbox_mAP_50: ' in printed['train']
    code = 'import sys, mmparc, mmcv.ops; print(sys.modules["mmcv._ext"].__file__)'
    used = run([empty / 'bin/python', '-c', code], tmp_path, PATH=f'{empty}/bin')
    assert Path(used.strip()).is_relative_to(packages / 'mmparc')
    # all that was written lies in the user's folder
    written = {'data', 'work_dirs', 'new.py', 'new_small.py'}
    assert {path.name for path in tmp_path.iterdir()} == written
    assert [path for path in (packages / 'mmparc/.mim').rglob('*') if path.suffix == '.pth'] == []
