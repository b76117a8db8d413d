"""README.md does what it says: its commands, its Python, its links.

Every command is run as it stands, but for what each test says that it appends. What would train on
a big data set, or on several GPUs, must come as far as the missing data. What builds, installs and
runs the wheel is run by test_wheel.py.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT, assert_close, run_tool, tool_environment
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from pages import Tree, blocks, commands, local_links, run_distributed

from mmparc.datasets import DEFAULTS
from mmparc.ops import parc_reference

README = (ROOT / 'README.md').read_text()


def kind(command: str) -> str:
    """How a command is tested; '' is one that no test here knows."""
    words = shlex.split(command)
    if words[0] == 'make':
        return 'make'
    if words == ['.', '.venv/bin/activate']:
        return 'activate'
    if words[0] == 'tools/dist_train.sh':
        return 'distributed'
    if command.startswith(('pip wheel ', "pip install 'dist/", 'python -m mmparc ')):
        return 'installed'
    if words[0] == 'python' and Path(ROOT, words[1]).is_file():
        return 'big' if words[1] == 'tools/train.py' and '_toy' not in words[2] else 'small'
    return ''


COMMANDS = [command for block in blocks(README, 'bash') for command in commands(block)]
each = {
    name: pytest.mark.parametrize('command', [c for c in COMMANDS if kind(c) == name])
    for name in ('make', 'big', 'distributed')
}


def test_every_command_is_tested() -> None:
    assert README.count('```bash') == len(blocks(README, 'bash')) > 0
    assert [command for command in COMMANDS if not kind(command)] == []
    kinds = {'make', 'activate', 'small', 'big', 'distributed', 'installed'}
    assert {kind(c) for c in COMMANDS} == kinds
    # controls
    assert kind('python tools/no_such_tool.py') == '' and kind('pip install mmparc') == ''


def test_every_link_leads_somewhere() -> None:
    local = local_links(README)
    assert len(local) >= 2
    assert [link for link in local if not (ROOT / link).exists()] == []


# Commands


def make(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in tool_environment().items() if not k.startswith(('MAKE', 'MF'))}
    command = ['make', '--dry-run', '--directory', str(ROOT), *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@each['make']
def test_make_targets_exist(command: str) -> None:
    result = make(*shlex.split(command)[1:])
    assert result.returncode == 0, result.stderr
    assert make('no-such-target').returncode != 0


def test_the_environment_is_where_the_readme_says() -> None:
    assert '. .venv/bin/activate' in COMMANDS
    assert '.venv/bin/python' in make('test').stdout


@each['big']
def test_big_training_gets_to_the_data(command: str, tmp_path: Path) -> None:
    """Run elsewhere, with the data sets far away and without what needs a GPU or weights."""
    _, tool, config, *rest = shlex.split(command)
    appended = ['--no-pretrained', '--no-amp', '--cfg-options', 'data_root=no/such/place']
    result = run_tool(tool, ROOT / config, *rest, *appended, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: there is no data root 'no/such/place")


@each['distributed']
def test_distributed_training_gets_to_the_data(command: str, tmp_path: Path) -> None:
    assert run_distributed(command, tmp_path) == []


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.slow
def test_small_commands_run_in_order(tree: Tree) -> None:
    for command in COMMANDS:
        if kind(command) == 'small':
            tree.run(command)
    assert len(tree.trained) == 3
    assert all((tree.folder / path).is_file() for path in tree.trained.values())
    assert list(tree.folder.glob('work_dirs/predictions/**/*.png'))
    assert list(tree.folder.glob('work_dirs/det/*/curves.png'))
    assert list(tree.folder.glob('data/toy-seed7/det/val2017/*.jpg'))


@pytest.mark.slow
def test_demo(tree: Tree) -> None:
    """What `make demo` runs once the environment is there, with 50 steps of training."""
    shorter = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=4']
    result = subprocess.run(
        ['tools/demo.sh', '--cfg-options', *shorter, 'train_dataloader.dataset.indices=200'],
        cwd=tree.folder,
        env={**tool_environment(), 'PYTHON': sys.executable},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    told = dict(
        re.findall(r'^(box AP50|checkpoint|predictions|curves|data) +(\S+)', result.stdout, re.M)
    )
    assert 0 <= float(told.pop('box AP50')) <= 1
    assert len(told) == 4
    assert all((tree.folder / path).exists() for path in told.values())
    assert len(list((tree.folder / told['predictions']).iterdir())) == DEFAULTS['det'].val


# Python


def python_block(word: str) -> str:
    (block,) = [block for block in blocks(README, 'python') if word in block]
    return block


def test_no_python_is_left_out() -> None:
    assert len(blocks(README, 'python')) == README.count('```python') == 2


def test_a_config_of_your_own(tmp_path: Path) -> None:
    path = tmp_path / 'my_config.py'
    path.write_text(python_block('_base_'))
    cfg = Config.fromfile(path)
    assert 'custom_imports' not in cfg
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    assert type(model.backbone).__name__ == 'ParCConvNeXt'
    data = model.data_preprocessor(demo_mm_inputs(1, (3, 64, 96)), training=True)
    losses = model(**data, mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert unused == [], 'DistributedDataParallel would stop at parameters without a gradient'
    with torch.no_grad():
        (found,) = model.eval()(
            **model.data_preprocessor(demo_mm_inputs(1, (3, 64, 96))), mode='predict'
        )
    assert len(found.pred_instances) <= 100


def test_the_operator_alone() -> None:
    names: dict = {}
    exec(python_block('from mmparc.ops import parc'), names)
    x, kernel, y = (names[name] for name in 'x kernel y'.split())
    assert y.shape == x.shape
    expected = parc_reference(x.double(), kernel.double(), axis='h', groups=96)
    assert_close(y, expected, 1e-5)
    turned = parc_reference(x.double(), kernel.double().roll(1, dims=-1), axis='h', groups=96)
    with pytest.raises(AssertionError):
        assert_close(y, turned, 1e-5)
