"""The command-line arguments that tools share."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.config import DictAction as MMEngineDictAction

from .config import load_config, set_work_dir
from .errors import UserError

# What a launcher tells each process, and how one starts it.
LAUNCHED = {
    'pytorch': ('RANK', 'tools/dist_train.sh CONFIG GPUS'),
    'slurm': ('SLURM_PROCID', 'tools/slurm_train.sh PARTITION JOB_NAME CONFIG'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'mpirun'),
}


class DictAction(MMEngineDictAction):
    """mmengine's reading of KEY=VALUE, which says what it cannot read as argparse does: exit 2."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: list[str],
        option_string: str | None = None,
    ) -> None:
        for value in values:
            key, found, _ = value.partition('=')
            if not found or not all(key.split('.')):
                parser.error(
                    f"argument {option_string}: '{value}' is no KEY=VALUE: write it as "
                    'model.backbone.depth=50, without spaces around the ='
                )
            try:
                super().__call__(parser, namespace, [value], option_string)
            except AssertionError as error:  # of brackets
                parser.error(f"argument {option_string}: '{value}': {error}")


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
