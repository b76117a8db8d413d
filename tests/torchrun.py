"""torchrun, with its own options and its own agent, whose processes are forked from it.

`run_tool('tests/torchrun.py', ...)` spares each process the import of all packages; what the tools
themselves start, tools/dist_train.sh for one, is the real one.
"""

import argparse
import runpy
import sys
from collections.abc import Callable

from torch.distributed import run
from torch.distributed.launcher.api import LaunchConfig

config_from_args = run.config_from_args


def forked(options: argparse.Namespace) -> tuple[LaunchConfig, Callable, list[str]]:
    config, *_ = config_from_args(options)
    config.start_method = 'fork'
    return config, start, [options.training_script, *options.training_script_args]


def start(*argv: str) -> None:
    sys.argv = list(argv)
    runpy.run_path(argv[0], run_name='__main__')


if __name__ == '__main__':
    run.config_from_args = forked
    run.main(sys.argv[1:])
