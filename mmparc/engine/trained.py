"""Builds what a config and a checkpoint describe: a Runner to test, or the model."""

from mmengine.config import Config
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import Runner
from torch import nn

from .checkpoint import allow_mmengine_checkpoints
from .checks import build_model, check_data, check_types, exists
from .config import drop_pretrained, use_default_collate
from .device import check_gpu_operators
from .errors import UserError, building
from .loading import check_whole_model
from .runner import ResumableRunner

UNTRAINED = 'none'  # in place of a checkpoint: random weights, the negative control


def check_checkpoint(checkpoint: str, purpose: str) -> None:
    """Raise UserError if a checkpoint is neither a file, nor an address, nor 'none'."""
    if checkpoint != UNTRAINED and not exists(checkpoint):
        raise UserError(
            f"there is no checkpoint '{checkpoint}' {purpose}: pass a file, or none for random "
            'weights'
        )


def runner_for_test(cfg: Config, checkpoint: str) -> Runner:
    """A Runner ready for its ``test()``; ``cfg`` is changed.

    ``checkpoint`` is of the whole model, or 'none' for random weights. UserError if it, the model
    or the data set does not exist, or they do not fit.
    """
    untrained = checkpoint == UNTRAINED
    cfg.resume = False
    cfg.load_from = None if untrained else checkpoint
    if untrained:
        drop_pretrained(cfg)
    check_types(cfg, 'test')
    check_data(cfg, 'test_dataloader')
    check_checkpoint(checkpoint, 'to test')
    check_gpu_operators(cfg)
    use_default_collate(cfg)
    allow_mmengine_checkpoints()
    model = build_model(cfg)
    if not untrained:
        check_whole_model(model, checkpoint)
    with building():
        runner = ResumableRunner.from_cfg(cfg)
        own = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if untrained:
            own.init_weights()
        else:
            own.load_state_dict(model.state_dict())
        _ = runner.test_loop  # builds its data loader and its metrics
    return runner


def build_trained(cfg: Config, checkpoint: str) -> nn.Module:
    """The model on the CPU in eval mode, without data; otherwise as :func:`runner_for_test`."""
    check_types(cfg)
    check_checkpoint(checkpoint, 'to load')
    drop_pretrained(cfg)
    allow_mmengine_checkpoints()
    model = revert_sync_batchnorm(build_model(cfg))
    if checkpoint == UNTRAINED:
        model.init_weights()
    else:
        check_whole_model(model, checkpoint)
    return model.eval()
