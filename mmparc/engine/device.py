"""Training on CPUs in several processes, and detectors on GPUs."""

import os
import subprocess
from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed

from .errors import UserError

# Where a launcher's rank, world size and local rank are, in the names that torch reads.
NAMES = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')
VARIABLES = {
    'pytorch': NAMES,
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


def check_gpu_operators(cfg: Config) -> None:
    """Raise UserError for a detector on a GPU where mmcv was compiled for the CPU alone.

    mmcv's NMS and RoIAlign would fail in the first step.
    """
    if cfg.default_scope != 'mmdet' or not torch.cuda.is_available():
        return
    from mmcv.ops import get_compiling_cuda_version  # takes seconds, which other tasks do not need

    if get_compiling_cuda_version() == 'not available':
        raise UserError(
            'mmcv was compiled without CUDA: replace it by mmcv-lite, whose operators mmparc has '
            'for GPUs, or set CUDA_VISIBLE_DEVICES= to use the CPU'
        )


def connect_on_cpu(launcher: str, settings: dict) -> None:
    """Connect a launcher's processes by gloo without a GPU, which mmengine's init_dist needs.

    ``settings`` are the config's env_cfg.dist_cfg.
    """
    if launcher == 'none' or is_distributed() or get_device() != 'cpu':
        return
    for name, variable in zip(NAMES, VARIABLES[launcher], strict=True):
        os.environ[name] = os.environ[variable]
    os.environ.setdefault('MASTER_PORT', '29500')
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        command = ['scontrol', 'show', 'hostname', os.environ['SLURM_NODELIST']]
        os.environ['MASTER_ADDR'] = subprocess.check_output(command, text=True).split()[0]
    timeout = settings.get('timeout')
    options = dict(timeout=timedelta(seconds=timeout)) if timeout else {}
    torch.distributed.init_process_group('gloo', **options)
