"""Stops a training whose loss or weights are NaN or infinite, before they reach a checkpoint."""

import functools
import logging
import math
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from .errors import UserError

NAMED = 4  # how many files the message lists; the log has all


def stop_unless_finite(runner: Runner) -> None:
    """Have a runner stop with a UserError where its loss or weights are NaN or infinite.

    Args:
        runner: built, but not yet training.
    """
    runner.register_hook(FiniteHook())


class FiniteHook(Hook):
    """Looks at each iteration's losses, and at the weights before they are saved.

    The losses have come to the host for the log anyway. A gradient may be infinite where the loss
    is not: then it is the next iteration's loss that is NaN, or the weights are. With a gradient
    scaler (AMP) infinite gradients are skipped, as they should be, and say nothing here. A loss
    that is infinite is no matter of its scale, and stops there too.
    """

    priority = 'VERY_HIGH'  # before what else looks at an iteration's losses

    def __init__(self) -> None:
        self.files: list[str] = []
        self.before: list[str] = []
        self.iteration = 0

    def before_train(self, runner: Runner) -> None:
        """Let the step say what it asserts of its numbers, as mmdet's CenterNetUpdate, PISA-SSD and
        YOLACT do before there is a loss.
        """
        runner.model.train_step = self._guarded(runner.model.train_step)

    def _guarded(self, step: Callable[..., dict]) -> Callable[..., dict]:
        @functools.wraps(step)
        def guarded(*args: Any, **options: Any) -> dict:
            try:
                return step(*args, **options)
            except AssertionError as error:
                line = traceback.extract_tb(error.__traceback__)[-1].line or ''
                if 'isfinite' not in line:
                    raise
                self._stop(f'not finite: {line}')

        return guarded

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the batch's files, and those of the one before."""
        self.iteration = runner.iter + 1
        self.before, self.files = self.files, list(image_files(data_batch))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Raise UserError if a loss is not finite."""
        outputs = outputs or {}
        losses = {k: float(torch.as_tensor(v).detach()) for k, v in outputs.items() if 'loss' in k}
        if not all(map(math.isfinite, losses.values())):
            self._stop(', '.join(f'{key} is {value:g}' for key, value in losses.items()))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Raise UserError if weights are not finite."""
        for name, value in runner.model.named_parameters():
            if not value.isfinite().all():
                self._stop(f'{name} is not finite')

    def _stop(self, seen: str) -> NoReturn:
        where = f'iteration {self.iteration}'
        for which, files in ((where, self.files), ('the one before', self.before)):
            text = f'images of {which}: {", ".join(files) or "unknown"}'
            print_log(text, 'current', logging.ERROR)
        more = f' and {len(self.files) - NAMED} more' if len(self.files) > NAMED else ''
        files = ', '.join(self.files[:NAMED]) + more
        raise UserError(
            f'{seen} in {where}, whose images are {files or "unknown"}: look at '
            'these and their annotations, or go on from the last checkpoint (--resume) at a lower '
            'learning rate'
        )


def image_files(batch: Any) -> Iterator[str]:
    """The paths of a batch's images, however it is nested; none where they are not kept."""
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        for part in batch:
            yield from image_files(part)
    elif isinstance(batch, BaseDataElement) and batch.get('img_path') is not None:
        yield str(batch.img_path)
