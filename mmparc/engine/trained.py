"""A config and a checkpoint made into what can be tested or looked at: a Runner, or the model."""

from pathlib import Path

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from .checkpoint import allow_mmengine_checkpoints
from .checks import check_data, check_model_types
from .config import drop_pretrained, use_default_collate
from .device import avoid_missing_cuda_ops, meet_on_cpu
from .errors import UserError
from .loading import check_whole_model

UNTRAINED = 'none'  # in place of a checkpoint: random weights, the negative control


def check_checkpoint(checkpoint: str, purpose: str) -> None:
    """Raise UserError if a checkpoint is neither a file, nor an address, nor 'none'."""
    local = checkpoint != UNTRAINED and '://' not in checkpoint
    if local and not Path(checkpoint).is_file():
        raise UserError(
            f"there is no checkpoint '{checkpoint}' {purpose}: pass a file, or none for random "
            'weights'
        )


def runner_for_test(cfg: Config, checkpoint: str) -> Runner:
    """A Runner whose model has the checkpoint's weights, ready for its ``test()``.

    Args:
        cfg: of the three tasks, with its work directory; it is changed.
        checkpoint: of the whole model, or 'none' for random weights.

    Raises:
        UserError: if there is no such checkpoint, model or data set, or they do not fit.
    """
    untrained = checkpoint == UNTRAINED
    cfg.resume = False
    cfg.load_from = None if untrained else checkpoint
    if untrained:
        drop_pretrained(cfg)
    check_model_types(cfg)
    check_data(cfg, 'test_dataloader')
    check_checkpoint(checkpoint, 'to test')
    use_default_collate(cfg)
    allow_mmengine_checkpoints()
    avoid_missing_cuda_ops(cfg)
    meet_on_cpu(cfg)
    runner = Runner.from_cfg(cfg)
    if untrained:
        runner.model.init_weights()
    else:
        check_whole_model(runner.model, cfg.load_from)
    return runner


def build_trained(cfg: Config, checkpoint: str) -> nn.Module:
    """The model on the CPU, in evaluation, with the checkpoint's weights; it needs no data.

    Args:
        cfg: of the three tasks; it is changed.
        checkpoint: of the whole model, or 'none' for random weights.

    Raises:
        UserError: if there is no such checkpoint or model, or they do not fit.
    """
    check_model_types(cfg)
    check_checkpoint(checkpoint, 'to load')
    drop_pretrained(cfg)
    allow_mmengine_checkpoints()
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    if checkpoint == UNTRAINED:
        model.init_weights()
    else:
        check_whole_model(model, checkpoint)
    return model.eval()
