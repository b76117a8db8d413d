"""How a run starts: its effective batch and learning rate, logged, checked and recorded.

The rate follows the batch linearly (Goyal et al., arXiv 1706.02677), as in mmengine's
Runner.scale_lr. That leaves accumulated steps out of the batch; here they count.
"""

import json
import logging
import math
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

import mmparc
from mmparc.home import home

RECORDS = 'starts.jsonl'


def accumulated(cfg: Config) -> int:
    """How many steps' gradients the optimizer adds up."""
    return cfg.optim_wrapper.get('accumulative_counts', 1)


def effective_batch(cfg: Config, world_size: int) -> int:
    """Samples behind one step of the optimizer: per process x processes x accumulated steps."""
    return cfg.train_dataloader.get('batch_size', 1) * world_size * accumulated(cfg)


def base_lr(cfg: Config) -> float | None:
    """A config's peak learning rate; None with several optimizers, or if it is not set."""
    return cfg.optim_wrapper.get('optimizer', {}).get('lr')


def advice(cfg: Config, own: float | None, batch: int, lr: float, resumed: bool) -> str | None:
    """The warning for a rate that does not follow from the config's; None where it does.

    Args:
        cfg: the config that is run; ``auto_scale_lr`` has the batch that its rate was made for.
        own: the rate in the config's file.
        batch: the run's effective batch.
        lr: its peak learning rate.
        resumed: the rate came with a checkpoint, and no option changes it.
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if not base or not own or math.isclose(lr, own * batch / base, rel_tol=0.01):
        return None
    follows = own * batch / base
    remedy = f'pass --auto-scale-lr, or --cfg-options optim_wrapper.optimizer.lr={follows:.4g}'
    if resumed:
        fitting = round(lr / own * base)
        remedy = f"a resumed run keeps its checkpoint's rate, which fits a batch of {fitting}"
    return (
        f'the learning rate is {lr:g} at a batch of {batch}, but the config was made for {own:g} '
        f'at {base}, from which {follows:g} follows: {remedy}'
    )


class StartHook(Hook):
    """Logs and records the batch and the rate once a resumed run has its checkpoint's.

    Register it before the rate is scaled.

    Args:
        runner: with its optimizer.
        made_for: its config without the options of the command line.
    """

    def __init__(self, runner: Runner, made_for: Config) -> None:
        self.own, self.built = base_lr(made_for), _first_rate(runner)
        scaling = runner.auto_scale_lr
        if scaling and scaling.get('enable'):
            base = scaling['base_batch_size'] / accumulated(runner.cfg)
            runner.auto_scale_lr = dict(scaling, base_batch_size=base)

    def before_train(self, runner: Runner) -> None:
        cfg, resumed, lr = runner.cfg, runner.iter > 0, base_lr(runner.cfg)
        if lr:  # scaled, or the checkpoint's, as the first group's
            lr *= _first_rate(runner) / self.built
        batch, steps = effective_batch(cfg, runner.world_size), accumulated(cfg)
        samples = batch // (runner.world_size * steps)
        rate = "the optimizer's own" if lr is None else f'{lr:g}'
        print_log(
            f'effective batch {batch} (samples x processes x accumulated steps: '
            f'{samples} x {runner.world_size} x {steps}), peak learning rate {rate}',
            'current',
        )
        if lr and (warning := advice(cfg, self.own, batch, lr, resumed)):
            print_log(warning, 'current', logging.WARNING)
        if is_main_process():
            with Path(runner.work_dir, RECORDS).open('a') as file:
                file.write(json.dumps(start_record(runner, batch, lr, resumed)) + '\n')


def _first_rate(runner: Runner) -> float | None:
    """The peak rate of the first group of parameters; None with several optimizers."""
    if 'optimizer' not in runner.cfg.optim_wrapper:
        return None
    group = runner.optim_wrapper.param_groups[0]
    return group.get('initial_lr', group['lr'])  # the first where there are schedulers


def start_record(runner: Runner, batch: int, lr: float | None, resumed: bool) -> dict:
    """The circumstances of a run, for tables."""
    commit, modified = commit_of(home())
    command = [argument.replace(f'{home()}/', '') for argument in sys.argv]
    return dict(
        time=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        command=shlex.join(['python', *command]),
        commit=commit,
        modified=modified,
        mmparc=mmparc.__version__,
        torch=torch.__version__,
        device=torch.cuda.get_device_name() if get_device() == 'cuda' else 'CPU',
        world_size=runner.world_size,
        batch_size=batch,
        base_batch_size=(runner.cfg.get('auto_scale_lr') or {}).get('base_batch_size'),
        lr=lr,
        seed=runner.seed,
        resumed=resumed,
    )


def commit_of(root: Path) -> tuple[str | None, bool | None]:
    """A checkout's commit, and whether tracked files differ from it; None if git cannot say."""
    if not (root / '.git').exists():  # an environment inside another project's checkout
        return None, None
    describe = ['describe', '--always', '--abbrev=40', '--exclude=*', '--dirty=+']
    try:
        said = subprocess.check_output(
            ['git', '-C', str(root), *describe], stderr=subprocess.DEVNULL, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return said.strip().removesuffix('+'), said.strip().endswith('+')
