"""Checkpoints that a crash or a full disk cannot damage.

mmengine's CheckpointHook writes a checkpoint under its final name, and removes the previous one
first. Here a checkpoint is written beside its final name, flushed to the disk and renamed, and the
previous one is removed last.
"""

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ..registry import HOOKS
from .errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whose content is, at any moment, either the old or the new one.

    Raises:
        UserError: if the disk is full or read-only; the old content stays.
    """
    beside = path.with_name(f'.{path.name}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise UserError(
            f"'{path}' could not be written ({error.strerror}): free some space or choose another "
            '--work-dir, then continue with --resume'
        ) from error
    finally:
        beside.unlink(missing_ok=True)


class AtomicBackend(LocalBackend):
    """Local files, written by :func:`write_atomically` and removed by AtomicCheckpointHook."""

    NAME = 'mmparc.atomic'

    def __init__(self) -> None:
        self.surplus: list[Path] = []  # to be removed later

    def remove(self, filepath: str | Path) -> None:
        self.surplus.append(Path(filepath))

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomically(Path(filepath), obj)


register_backend(AtomicBackend.NAME, AtomicBackend, force=True)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook with atomic writes, for any config and any runner.

    Its arguments are CheckpointHook's. With ``backend_args`` or ``file_client_args`` the storage
    that they name writes and removes the files. Old checkpoints are removed after the new one and
    ``last_checkpoint`` are written, and only in this run's own folder.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        local = '://' not in str(self.out_dir or '')
        if local and self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend=AtomicBackend.NAME)

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self._remove_surplus(runner)
        # A resumed run may find a new best score before it saves: its name goes into this one.
        self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Save the best checkpoint, then remove the previous best one."""
        super().after_val_epoch(runner, metrics)
        self._remove_surplus(runner)

    def _remove_surplus(self, runner: Runner) -> None:
        """Remove old checkpoints; one from elsewhere belongs to the run that was resumed."""
        surplus = getattr(self.file_backend, 'surplus', [])
        info = runner.message_hub.runtime_info.items()
        used = {str(value) for key, value in info if 'ckpt' in key}
        for path in surplus:
            if path.parent == Path(self.out_dir) and str(path) not in used:
                path.unlink(missing_ok=True)
        surplus.clear()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        surplus = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            # The new checkpoint lists the surplus ones too: if the run is killed before it removes
            # them, mmengine's before_train does so when it is resumed.
            saved = [*self.keep_ckpt_ids, step]
            runner.message_hub.update_info('keep_ckpt_ids', saved)
            surplus = saved[: -self.max_keep_ckpts]
            self.keep_ckpt_ids.append(step)  # a deque of max_keep_ckpts: drops the surplus
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_atomically(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode())
            for old in surplus:
                path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
            self._remove_surplus(runner)


def use_atomic_checkpoints(cfg: Config) -> None:
    """Replace mmengine's CheckpointHook in a config by AtomicCheckpointHook; other hooks stay."""
    # Without an entry mmengine's Runner adds this one.
    default = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    cfg.default_hooks = {**default, **(cfg.get('default_hooks') or {})}
    for hook in (*cfg.default_hooks.values(), *(cfg.get('custom_hooks') or ())):
        kind = hook.get('type') if isinstance(hook, dict) else None
        if (HOOKS.get(kind) if isinstance(kind, str) else kind) is CheckpointHook:
            hook['type'] = 'mmparc.AtomicCheckpointHook'
