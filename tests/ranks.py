"""What each process of a training notes of itself, for robustness/test_processes.py.

A config with ``custom_imports = dict(imports=['ranks'])`` finds the hook and the models here.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from torch import Tensor, nn


@HOOKS.register_module()
class NoteHook(Hook):
    """Writes ``rank-R.pt`` into the work directory when training ends.

    It holds the files of each step's samples, the gradients that each step of the optimizer took,
    and the parameters and buffers at the end. In each step, ``pids-R`` gets the numbers of the
    process and of its workers.

    Args:
        gradients: whether to note them.
        alone: the step, from 0, in which the processes do not exchange gradients.
        die: (rank, step, how) of the process that dies once, by 'SIGKILL' or an 'exception';
            ``died`` gets the time.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        gradients: bool = False,
        alone: int | None = None,
        die: tuple[int, int, str] | None = None,
    ) -> None:
        self.gradients = [] if gradients else None
        self.alone, self.die = alone, die
        self.samples = []

    def before_train(self, runner: Runner) -> None:
        if self.gradients is None:
            return
        named = dict(unwrapped(runner.model).named_parameters())

        def note(*_: Any) -> None:
            self.gradients.append({name: p.grad.clone() for name, p in named.items()})

        runner.optim_wrapper.optimizer.register_step_pre_hook(note)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.samples.append([sample.img_path for sample in data_batch['data_samples']])
        folder = Path(runner.work_dir)
        children = psutil.Process().children(recursive=True)
        pids = [os.getpid(), *(child.pid for child in children)]
        (folder / f'pids-{runner.rank}').write_text(' '.join(map(str, pids)))
        if is_distributed():
            runner.model.require_backward_grad_sync = runner.iter != self.alone
        dies = self.die is not None and tuple(self.die[:2]) == (runner.rank, runner.iter)
        if dies and not (folder / 'died').exists():
            (folder / 'died').write_text(str(time.time()))
            if self.die[2] == 'SIGKILL':
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError('this process was asked to die')

    def after_train(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        noted = dict(
            samples=self.samples,
            gradients=self.gradients,
            parameters={name: p.detach() for name, p in model.named_parameters()},
            buffers=dict(model.named_buffers()),
        )
        torch.save(noted, Path(runner.work_dir, f'rank-{runner.rank}.pt'))


def unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_distributed() else model


@MODELS.register_module()
class Double(ImageClassifier):
    """A classifier in float64."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.double()

    def forward(self, inputs: Tensor, *args: Any, **options: Any) -> Any:
        return super().forward(inputs.double(), *args, **options)


@MODELS.register_module()
class Unused(ImageClassifier):
    """A classifier with a parameter that its loss does not depend on."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.unused = nn.Parameter(torch.ones(3))
