"""The command-line arguments that tools share."""

import argparse
import os

from mmengine.config import Config, DictAction

from .config import load_config, set_work_dir


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which config is meant and how it is changed."""
    parser.add_argument(
        'config', help='a path, or a name such as mmparc::det/...py or mmdet::...py'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override config entries; data_root=DIR moves the data set',
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which config is run, how it is changed, where and by whom."""
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='where logs, metrics and checkpoints go')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it; torchrun sets the environment variable itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)


def config_of(args: argparse.Namespace) -> Config:
    """Load the config that parsed arguments ask for, with its work directory and launcher."""
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    set_work_dir(cfg, args.config, args.work_dir)
    cfg.launcher = args.launcher
    return cfg
