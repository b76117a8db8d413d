"""Checkpoints that are there whole or not at all, whenever the process ends.

mmengine writes a checkpoint into its own name, and last_checkpoint too, and removes the oldest, or
the previous best one, before. Here each is written beside its name, flushed to the disk and
renamed, and what is surplus goes when the new one is there.
"""

import os
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from .errors import UserError

BESIDE = '.{}.part'


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is, at any moment, what it was before or whole.

    Raises:
        UserError: if the disk refuses it; the file is then what it was before.
    """
    beside = path.with_name(BESIDE.format(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise UserError(
            f"'{path}' could not be written ({error.strerror}); what was there before is whole: "
            'mend that, then go on with --resume'
        ) from error
    finally:
        beside.unlink(missing_ok=True)


class WholeFiles(LocalBackend):
    """mmengine's files on the local disk, written by :func:`write_whole`."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_whole(Path(filepath), obj)


class WholeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, which removes nothing before its successor is there."""

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        # A best one that is found before the next is saved is named in the one resumed from.
        self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')
        if is_main_process():  # what a killed run was writing
            for folder in {self.out_dir, runner.work_dir}:
                for left in Path(folder).glob(BESIDE.format('*')):
                    left.unlink()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        surplus = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            # The checkpoint names the surplus one too: if the run is killed before it removes it,
            # upstream's before_train does so in the resumed one.
            runner.message_hub.update_info('keep_ckpt_ids', [*self.keep_ckpt_ids, step])
            surplus = [*self.keep_ckpt_ids, step][: -self.max_keep_ckpts]
            self.keep_ckpt_ids.append(step)  # which drops them
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
            write_whole(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode())
            for old in surplus:
                path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        surplus = []
        self.file_backend.remove = surplus.append
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            del self.file_backend.remove
        for path in surplus:
            if path not in self._best():
                self.file_backend.remove(path)

    def _best(self) -> list[str]:
        several = getattr(self, 'best_ckpt_path_dict', None)
        return [self.best_ckpt_path] if several is None else list(several.values())


def keep_checkpoints_whole(runner: Runner) -> None:
    """Have a runner write its checkpoints so.

    Args:
        runner: built, but not yet training.
    """
    register_backend('local', WholeFiles, force=True, prefixes='')
    for hook in runner.hooks:
        if type(hook) is CheckpointHook:  # under whichever name the config has it; not another's
            hook.__class__ = WholeCheckpointHook
