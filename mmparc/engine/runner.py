"""mmengine's Runner as the tools use it: checked data, exact resume, several processes on CPUs."""

import logging
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from . import data_checks
from .device import connect_on_cpu
from .errors import building
from .finite import StopOnNonFiniteHook
from .resuming import EvaluationHook, SeedHook
from .samples import seeded


class ResumableRunner(Runner):
    """A Runner whose resumed runs end as uninterrupted ones."""

    @classmethod
    def for_training(cls, cfg: Config) -> 'ResumableRunner':
        """A Runner with all that :meth:`train` would build later, its data checked.

        Only the schedulers follow in :meth:`train`, after the learning rate is scaled.

        Raises:
            UserError: if anything cannot be built.
        """
        with building():
            runner = cls.from_cfg(cfg)
            for hook in (SeedHook(), EvaluationHook(), StopOnNonFiniteHook()):
                runner.register_hook(hook)
            loops = [runner.train_loop]
            with building('the optimizer'):
                runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
            loops += [runner.val_loop] if runner.val_loop else []
            for loop in loops:
                data_checks.check_labels(loop.dataloader.dataset, runner.model)
        return runner

    def setup_env(self, env_cfg: dict) -> None:
        connect_on_cpu(self.launcher, env_cfg.get('dist_cfg', {}))
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap as mmengine does; on CPUs, DDP gets no device_ids and SyncBN becomes BN."""
        if self.distributed and get_device() == 'cpu':
            if any(isinstance(part, nn.SyncBatchNorm) for part in model.modules()):
                text = 'SyncBN needs a GPU: each process normalizes its own images (BN)'
                print_log(text, 'current', logging.WARNING)
                model = revert_sync_batchnorm(model)
            if model_wrapper_cfg is None:
                model_wrapper_cfg = dict(
                    device_ids=None,
                    broadcast_buffers=False,  # as mmengine with GPUs
                    find_unused_parameters=self.cfg.get('find_unused_parameters', False),
                )
        return super().wrap_model(model_wrapper_cfg, model)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        if isinstance(dataloader, DataLoader):
            return dataloader
        sets = ', '.join(map(data_checks.describe, data_checks.datasets_of(dataloader)))
        with building(f'the loader of {sets}'):
            if is_main_process():
                data_checks.check_coco_files(dataloader)
            try:
                loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
            except ValueError:
                data_checks.check_not_empty(dataloader)
                raise
            for dataset in data_checks.innermost(loader.dataset):
                data_checks.check_categories(dataset)
            return seeded(loader, seed)

    def build_param_scheduler(self, scheduler: Any) -> Any:
        with building('the schedulers'):
            return super().build_param_scheduler(scheduler)

    def load_checkpoint(self, filename: str, *args: Any, **options: Any) -> dict:
        """Load as mmengine does, without the config's text, which mmengine would run as Python."""
        checkpoint = super().load_checkpoint(filename, *args, **options)
        checkpoint.get('meta', {}).pop('config', None)
        return checkpoint

    def save_checkpoint(self, *args: Any, save_optimizer: bool = True, **options: Any) -> None:
        """Save as mmengine does, after collecting the optimizer's state from all processes.

        With ZeroRedundancyOptimizer each process holds a share of it. mmengine asks the main
        process alone, which would wait for the others.
        """
        if save_optimizer and self.rank > 0 and isinstance(self.optim_wrapper, OptimWrapper):
            self.optim_wrapper.state_dict()
        super().save_checkpoint(*args, save_optimizer=save_optimizer, **options)
