"""README.md does what it says: its commands, its Python, its links.

Every command is run as it stands, but for what each test says that it appends. What would train on
a big data set, or on several GPUs, must come as far as the missing data.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT, assert_close, run_tool, tool_environment
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmparc import engine
from mmparc.datasets import DEFAULTS
from mmparc.ops import parc_reference

README = (ROOT / 'README.md').read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', README, re.DOTALL | re.MULTILINE)


def kind(command: str) -> str:
    """How a command is tested; '' is one that no test here knows."""
    words = shlex.split(command)
    if words[0] == 'make':
        return 'make'
    if words == ['.', '.venv/bin/activate']:
        return 'activate'
    if words[0] == 'tools/dist_train.sh':
        return 'distributed'
    if words[0] == 'python' and Path(ROOT, words[1]).is_file():
        return 'big' if words[1] == 'tools/train.py' and '_tiny' not in words[2] else 'small'
    return ''


COMMANDS = [line for block in blocks('bash') for line in block.splitlines() if line.strip()]
each = {
    name: pytest.mark.parametrize('command', [c for c in COMMANDS if kind(c) == name])
    for name in ('make', 'big', 'distributed')
}
# What shortens a training run: --train and --val of its data, and one epoch or two steps of it.
FEW = ['--train', '16', '--val', '8']
SHORT = ['--cfg-options', 'train_dataloader.batch_size=8']


def test_every_command_is_tested() -> None:
    assert README.count('```bash') == len(blocks('bash')) > 0
    assert [command for command in COMMANDS if not kind(command)] == []
    assert {kind(c) for c in COMMANDS} == {'make', 'activate', 'small', 'big', 'distributed'}
    # controls
    assert kind('python tools/no_such_tool.py') == '' and kind('pip install mmparc') == ''


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r'\]\(([^)\s]+)\)', README)
    local = [link.partition('#')[0] for link in links if '://' not in link]
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
    """A torchrun that writes its arguments down stands in for the real one."""
    torchrun, called = tmp_path / 'torchrun', tmp_path / 'called'
    torchrun.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {called}\n')
    torchrun.chmod(0o755)
    environment = tool_environment()
    environment['PATH'] = f'{tmp_path}:{environment["PATH"]}'
    subprocess.run(shlex.split(command), cwd=ROOT, env=environment, check=True)
    args = called.read_text().splitlines()
    gpus = shlex.split(command)[2]
    assert f'--nproc_per_node={gpus}' in args
    script = next(i for i, arg in enumerate(args) if not arg.startswith('--'))
    tool, config, *rest = args[script:]
    assert rest == ['--launcher', 'pytorch']
    appended = ['--no-pretrained', '--cfg-options', 'data_root=no/such/place']
    result = run_tool(ROOT / tool, ROOT / config, *appended, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: there is no data root 'no/such/place")


@pytest.fixture
def copy_of_the_tree(tmp_path: Path) -> Path:
    for folder in ('configs', 'tools'):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


@pytest.mark.slow
def test_small_commands_run_in_order(copy_of_the_tree: Path) -> None:
    """With small data sets and short training; checkpoints are named after its length."""
    trained = {}
    for command in [c for c in COMMANDS if kind(c) == 'small']:
        for long, shortened in trained.items():
            command = command.replace(long, shortened)
        _, tool, *args = shlex.split(command)
        if tool == 'tools/make_tiny_data.py':
            args += FEW
        elif tool == 'tools/train.py':
            cfg = Config.fromfile(copy_of_the_tree / args[0])
            unit, value = ('epoch', 1) if 'max_epochs' in cfg.train_cfg else ('iter', 2)
            full = cfg.train_cfg[f'max_{unit}s']
            folder = f'work_dirs/{engine.config.TASKS[cfg.default_scope]}/{Path(args[0]).stem}'
            trained[f'{folder}/{unit}_{full}.pth'] = f'{folder}/{unit}_{value}.pth'
            args += [*SHORT, f'train_cfg.max_{unit}s={value}']
        elif tool == 'tools/test.py' and args[1] != 'none':
            assert args[1] in trained.values(), 'the README tests a checkpoint that it did not make'
        result = run_tool(copy_of_the_tree / tool, *args, cwd=copy_of_the_tree)
        assert result.returncode == 0, f'{command}\n{result.stdout[-2000:]}{result.stderr[-4000:]}'
    assert len(trained) == 3
    assert all((copy_of_the_tree / path).is_file() for path in trained.values())
    assert list(copy_of_the_tree.glob('work_dirs/predictions/**/*.png'))
    assert list(copy_of_the_tree.glob('work_dirs/det/*/curves.png'))
    assert list(copy_of_the_tree.glob('data/tiny-seed7/det/val2017/*.jpg'))


@pytest.mark.slow
def test_demo(copy_of_the_tree: Path) -> None:
    """What `make demo` runs once the environment is there, with 50 steps of training."""
    shorter = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=4']
    result = subprocess.run(
        ['tools/demo.sh', '--cfg-options', *shorter, 'train_dataloader.dataset.indices=200'],
        cwd=copy_of_the_tree,
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
    assert all((copy_of_the_tree / path).exists() for path in told.values())
    assert len(list((copy_of_the_tree / told['predictions']).iterdir())) == DEFAULTS['det'].val


# Python


def python_block(word: str) -> str:
    (block,) = [block for block in blocks('python') if word in block]
    return block


def test_no_python_is_left_out() -> None:
    assert len(blocks('python')) == README.count('```python') == 2


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
