"""Reads the command line of tools/train.py and tools/test.py (mmparc/tool.py) into a config."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config

from .config import load_config, set_work_dir
from .errors import UserError

# What a launcher tells each process, and how one starts it.
LAUNCHED = {
    'pytorch': ('RANK', 'tools/dist_train.sh CONFIG GPUS'),
    'slurm': ('SLURM_PROCID', 'tools/slurm_train.sh PARTITION JOB_NAME CONFIG'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'mpirun'),
}


def config_of(args: argparse.Namespace) -> Config:
    """Load the config that parsed arguments ask for, with its work directory and launcher."""
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.launcher != 'none':
        variable, command = LAUNCHED[args.launcher]
        if variable not in os.environ:
            raise UserError(
                f'--launcher {args.launcher} is for a process that it has started, and {variable} '
                f'is not in the environment: start it by {command}, or leave --launcher out'
            )
    cfg = load_config(args.config, args.cfg_options)
    set_work_dir(cfg, args.config, args.work_dir)
    if Path(cfg.work_dir).exists() and not Path(cfg.work_dir).is_dir():
        raise UserError(f"the work directory '{cfg.work_dir}' is a file: pass another --work-dir")
    cfg.launcher = args.launcher
    return cfg
