"""Which device a run may use, and how its processes meet where that is the CPU."""

import logging
from typing import Any
from unittest import mock

import torch
from mmcv.ops import get_compiling_cuda_version
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.device import utils as device_utils
from mmengine.dist import init_dist
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn


def avoid_missing_cuda_ops(cfg: Config) -> None:
    """Keep a detector on the CPU where there is a GPU but mmcv was compiled without CUDA.

    mmcv's NMS and RoIAlign would fail on the GPU in the middle of the first step.
    """
    if cfg.default_scope != 'mmdet' or not torch.cuda.is_available():
        return
    if get_compiling_cuda_version() != 'not available':
        return
    print_log(
        'mmcv was compiled without CUDA, so this detector runs on the CPU: tools/doctor.py prints '
        'how to use the GPU',
        logger='current',
        level=logging.WARNING,
    )
    device_utils.DEVICE = 'cpu'  # what mmengine's get_device() returns; it offers no other way


def meet_on_cpu(cfg: Config) -> None:
    """Let the processes of a run that a launcher has started work together on CPUs.

    mmengine's launchers choose a GPU, NCCL does without none, and its wrapper names one. Where the
    run is on a GPU, or is one process, nothing is changed.
    """
    if cfg.get('launcher', 'none') == 'none' or get_device() != 'cpu':
        return
    env_cfg = cfg.get('env_cfg', {})
    # as in Runner.setup_env; without it init_dist would choose how workers are started
    set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
    with mock.patch.object(torch.cuda, 'set_device'):
        init_dist(cfg.launcher, **{**env_cfg.get('dist_cfg', {}), 'backend': 'gloo'})
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='mmengine.CPUDistributedDataParallel',
            broadcast_buffers=False,  # as mmengine has it where there are GPUs
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's, for a CPU, whatever device it is told.

    SyncBN, which torch has for GPUs alone, becomes BN.
    """

    def __init__(self, module: nn.Module, **options: Any) -> None:
        if any(isinstance(part, nn.SyncBatchNorm) for part in module.modules()):
            print_log(
                'there is no SyncBN on a CPU: each process normalises by its own images (BN)',
                'current',
                logging.WARNING,
            )
        super().__init__(revert_sync_batchnorm(module), **{**options, 'device_ids': None})
