"""Which device a run may use."""

import logging

import torch
from mmcv.ops import get_compiling_cuda_version
from mmengine.config import Config
from mmengine.device import utils as device_utils
from mmengine.logging import print_log


def avoid_missing_cuda_ops(cfg: Config) -> None:
    """Keep a detector on the CPU where there is a GPU but mmcv was built without CUDA.

    mmcv's NMS and RoIAlign would fail on the GPU in the middle of the first step.
    """
    if cfg.default_scope != 'mmdet' or not torch.cuda.is_available():
        return
    if get_compiling_cuda_version() != 'not available':
        return
    print_log(
        "mmcv was built without CUDA, so this detector runs on the CPU: install torch's CUDA "
        'toolkit (nvcc) and build mmcv again (in a checkout: `make env`)',
        logger='current',
        level=logging.WARNING,
    )
    device_utils.DEVICE = 'cpu'  # what mmengine's get_device() returns; it offers no other way
