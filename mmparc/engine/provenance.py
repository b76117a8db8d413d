"""How a run starts: its effective batch and learning rate, logged, checked and recorded.

The rate follows the batch linearly (Goyal et al., arXiv 1706.02677), as in mmengine's
Runner.scale_lr. That leaves accumulated steps out of the batch; here they count.
"""

import json
import logging
import math
import re
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


def base_batch_size(cfg: Config) -> int | None:
    """The effective batch that a config's rate was made for, if known.

    From ``auto_scale_lr``, else from its file's name: ..._8xb2-... means 8 GPUs with 2 samples
    each, times the accumulated steps.
    """
    if stated := _stated(cfg):
        return stated
    named = re.search(r'(?<![a-z0-9])(\d+)xb(\d+)(?![a-z0-9])', Path(cfg.filename or '').stem)
    return int(named[1]) * int(named[2]) * accumulated(cfg) if named else None


def batch_made_for(cfg: Config, made_for: Config) -> int | None:
    """:func:`base_batch_size` of a config with options, whose own accumulation does not count."""
    return _stated(cfg) or base_batch_size(made_for)


def _stated(cfg: Config) -> int | None:
    return (cfg.get('auto_scale_lr') or {}).get('base_batch_size')


def base_lr(cfg: Config) -> float | None:
    """A config's peak learning rate; None with several optimizers, or if it is not set."""
    return cfg.optim_wrapper.get('optimizer', {}).get('lr')


def peak_lr(cfg: Config, world_size: int) -> float | None:
    """A run's peak learning rate: scaled with the batch where ``auto_scale_lr`` is on."""
    lr = base_lr(cfg)
    if lr is None or not (cfg.get('auto_scale_lr') or {}).get('enable'):
        return lr
    return lr * effective_batch(cfg, world_size) / cfg.auto_scale_lr.base_batch_size


def advice(cfg: Config, made_for: Config, batch: int, lr: float, resumed: bool) -> str | None:
    """The warning for a rate that does not follow from the config's; None where it does.

    Args:
        cfg: the config that is run.
        made_for: the same without the options of the command line.
        batch: the run's effective batch.
        lr: its peak learning rate.
        resumed: the rate came with a checkpoint, and no option changes it.
    """
    base, own = batch_made_for(cfg, made_for), base_lr(made_for)
    if not base or not own:
        return None
    follows = own * batch / base
    if math.isclose(lr, follows, rel_tol=0.01):
        return None
    scale = '--auto-scale-lr'
    if not _stated(cfg):
        scale += f' with --cfg-options auto_scale_lr.base_batch_size={base}'
    if resumed:
        remedy = (
            "a resumed run keeps its checkpoint's, so choose GPUs, samples and accumulated steps "
            f'that make a batch of {round(lr / own * base)}'
        )
    elif base_lr(cfg) != own:
        remedy = f'omit optim_wrapper.optimizer.lr and pass {scale}'
    else:
        remedy = f'pass {scale}, or --cfg-options optim_wrapper.optimizer.lr={follows:.4g}'
    return (
        f'the learning rate is {lr:g} at a batch of {batch}, but the config was made for {own:g} '
        f'at {base}, from which {follows:g} follows: {remedy}'
    )


def note_start(runner: Runner, made_for: Config) -> None:
    """Log and record the batch and the rate of a built Runner when its training begins.

    ``made_for`` is its config without the options of the command line.
    """
    scaling = runner.auto_scale_lr
    if scaling and scaling.get('enable'):
        base = scaling['base_batch_size'] / accumulated(runner.cfg)
        runner.auto_scale_lr = dict(scaling, base_batch_size=base)
    runner.register_hook(StartHook(made_for))


class StartHook(Hook):
    """Logs once the rate is known, which a resumed run takes from its checkpoint."""

    def __init__(self, made_for: Config) -> None:
        self.made_for = made_for

    def before_run(self, runner: Runner) -> None:
        """The optimizer is built and scaled; a checkpoint's state is not loaded yet."""
        self.lr = peak_lr(runner.cfg, runner.world_size)
        self.built = _first_rate(runner)

    def before_train(self, runner: Runner) -> None:
        cfg, resumed = runner.cfg, runner.iter > 0
        if self.lr is not None:
            self.lr *= _first_rate(runner) / self.built
        batch, steps = effective_batch(cfg, runner.world_size), accumulated(cfg)
        samples = batch // (runner.world_size * steps)
        rate = "the optimizer's own" if self.lr is None else f'{self.lr:g}'
        print_log(
            f'effective batch {batch} (samples x processes x accumulated steps: '
            f'{samples} x {runner.world_size} x {steps}), peak learning rate {rate}',
            'current',
        )
        warning = self.lr and advice(cfg, self.made_for, batch, self.lr, resumed)
        if warning:
            print_log(warning, 'current', logging.WARNING)
        if is_main_process():
            base = batch_made_for(cfg, self.made_for)
            record = start_record(runner, batch, base, self.lr, resumed)
            with Path(runner.work_dir, RECORDS).open('a') as file:
                file.write(json.dumps(record) + '\n')


def _first_rate(runner: Runner) -> float | None:
    """The peak rate of the first group of parameters; None with several optimizers."""
    if 'optimizer' not in runner.cfg.optim_wrapper:
        return None
    group = runner.optim_wrapper.param_groups[0]
    return group.get('initial_lr', group['lr'])  # the first where there are schedulers


def start_record(
    runner: Runner, batch: int, base: int | None, lr: float | None, resumed: bool
) -> dict:
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
        base_batch_size=base,
        lr=lr,
        seed=runner.seed,
        resumed=resumed,
    )


def commit_of(root: Path) -> tuple[str | None, bool | None]:
    """A checkout's commit, and whether tracked files differ from it; None if git cannot say."""
    if not (root / '.git').exists():  # an environment inside another project's checkout
        return None, None

    def git(*args: str) -> str:
        command = ['git', '-C', str(root), *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        commit = git('rev-parse', 'HEAD')
        return commit, bool(git('status', '--porcelain', '--untracked-files=no'))
    except (OSError, subprocess.CalledProcessError):
        return None, None
