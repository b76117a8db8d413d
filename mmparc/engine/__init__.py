"""What stands between a command line and mmengine's Runner, for all three tasks."""

# ruff: noqa: F401  names of this package

from mmparc.errors import UserError

from .checkpoint import allow_mmengine_checkpoints, load_weights_only
from .checks import build_model, check_data, check_length, check_pretrained, check_types
from .config import (
    config_of,
    drop_pretrained,
    enable_auto_scale_lr,
    enable_drawing,
    load_config,
    set_amp,
    set_work_dir,
    use_default_collate,
)
from .device import check_gpu_operators
from .errors import building
from .loading import check_loaded_share, check_whole_model
from .provenance import StartHook
from .resuming import take_up_seed
from .runner import ResumableRunner
from .saving import use_atomic_checkpoints
from .stopping import stops_in_one_line
from .trained import UNTRAINED, build_trained, check_checkpoint, runner_for_test
