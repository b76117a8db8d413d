"""Stops a training whose loss or weights become NaN or infinite, before a checkpoint has them."""

import logging
import math
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from ..registry import HOOKS
from .errors import UserError, listed


@HOOKS.register_module()
class StopOnNonFiniteHook(Hook):
    """Checks the losses of each iteration, and the weights before they are saved.

    A gradient can be infinite where the loss is finite: then the next iteration's loss is NaN, or
    the weights are. With a gradient scaler (AMP) such steps are skipped and nothing is raised.
    A model that asserts finite losses itself, as mmdet's CenterNetUpdate, raises first.
    """

    priority = 'VERY_HIGH'  # before the hooks that log and save

    def __init__(self) -> None:
        self.iteration = 0
        self.files: list[str] = []
        self.files_before: list[str] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the names of this batch's images and the last one's."""
        self.iteration = runner.iter + 1
        self.files_before, self.files = self.files, list(image_files(data_batch))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Raise UserError if a loss is not finite."""
        values = {k: float(torch.as_tensor(v).detach()) for k, v in (outputs or {}).items()}
        wrong = [f'{k} is {v:g}' for k, v in values.items() if 'loss' in k and not math.isfinite(v)]
        if wrong:
            self._stop(', '.join(wrong))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Raise UserError if a weight is not finite."""
        for name, value in runner.model.named_parameters():
            if not value.isfinite().all():
                self._stop(f'{name} is not finite')

    def _stop(self, seen: str) -> NoReturn:
        batches = {self.iteration: self.files, self.iteration - 1: self.files_before}
        for iteration, files in batches.items():
            text = f'images of iteration {iteration}: {", ".join(files) or "unknown"}'
            print_log(text, 'current', logging.ERROR)
        raise UserError(
            f'{seen} in iteration {self.iteration} (images: {listed(self.files) or "unknown"}): '
            'check these images and their annotations, or continue from the last checkpoint with '
            '--resume and a lower learning rate'
        )


def image_files(batch: Any) -> Iterator[str]:
    """The paths of a batch's images, however it is nested; none where the samples keep none."""
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        for part in batch:
            yield from image_files(part)
    elif isinstance(batch, BaseDataElement) and batch.get('img_path') is not None:
        yield str(batch.img_path)
