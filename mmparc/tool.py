"""What all tools share: common arguments, and how a tool ends. Imports no package.

A tool parses its arguments before it imports torch, so that ``--help`` answers at once. It makes a
parser without importing any package, and imports what it needs in ``main``:

    def make_parser() -> argparse.ArgumentParser: ...

    def main(args: argparse.Namespace) -> None:
        from mmparc import engine
        ...

    if __name__ == '__main__':
        tool.run(make_parser(), main)
"""

import argparse
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmparc.errors import UserError

# How a tool ends


def run(parser: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> None:
    """Parse the command line and call ``main`` with it.

    Exit codes: 1 for an error that is shown in one line (see :func:`one_line_errors`), 2 for a
    wrong argument, 130 after Ctrl-C, 141 if the reader of the output has left (``| head``). If the
    tool has a ``--traceback``, that shows the trace of an error instead of the line.
    """
    with one_line_errors():
        args = parser.parse_args()
    with one_line_errors(traceback=getattr(args, 'traceback', False)):
        main(args)


@contextmanager
def one_line_errors(traceback: bool = False) -> Iterator[None]:
    """Exit with one line on stderr where the user can fix the cause; other errors keep their trace.

    These are a UserError, a package that is not installed, and a file that cannot be opened or
    written. Ctrl-C and a closed output end the process quietly.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        # or Python's own flush at exit fails again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        line = _line_of(error)
        if line is None or traceback:
            raise
        sys.exit(f'error: {line}')


def _line_of(error: Exception) -> str | None:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and not (error.name or '').startswith('mmparc'):
        return (
            f'{error.name or error} is not installed in this Python: in a checkout run `make env`, '
            "then `. .venv/bin/activate`; with an installed mmparc run `pip install 'mmparc[mm]'`"
        )
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"'{error.filename}': {error.strerror}"
    return None


def _output_is_closed() -> bool:
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def quiet() -> None:
    """Silence the warnings of upstream's constructors, and mmengine's log below errors."""
    from mmengine.logging import MMLogger

    warnings.simplefilter('ignore')
    MMLogger.get_current_instance().setLevel('ERROR')


# Common arguments


class CfgOptions(argparse.Action):
    """Reads KEY=VALUE as mmengine's DictAction does; what it cannot read exits with 2."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        for value in values:
            key, found, _ = value.partition('=')
            if not found or not all(key.split('.')):
                raise argparse.ArgumentError(
                    self,
                    f"expected KEY=VALUE, got '{value}': write it as model.backbone.depth=50, "
                    'without spaces around the =',
                )
        from mmengine.config import DictAction  # takes seconds

        read = DictAction(self.option_strings, self.dest, nargs='+')
        for value in values:
            try:
                read(parser, namespace, [value], option_string)
            except AssertionError as error:  # unbalanced brackets
                raise argparse.ArgumentError(self, f"'{value}': {error}") from None


def add_cfg_options(
    parser: argparse.ArgumentParser,
    help: str = 'override config entries; data_root=DIR moves the data set',
) -> None:
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help=help
    )


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which config is meant and how it is changed."""
    parser.add_argument(
        'config', help='a path, or a name such as mmparc::det/...py or mmdet::...py'
    )
    add_cfg_options(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what tools/train.py and tools/test.py share; engine.config_of reads it."""
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='folder for logs, metrics and checkpoints')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it; torchrun sets the environment variable itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        '--traceback', action='store_true', help='show where an error was raised, not one line'
    )


def add_out(
    parser: argparse.ArgumentParser, default: str | None = None, what: str = 'folder for the files'
) -> None:
    """Add --out and --force, for a tool that refuses to overwrite (report.make_folder)."""
    shown = f' ({default})' if default else ''
    parser.add_argument('--out', type=Path, default=default, metavar='PATH', help=f'{what}{shown}')
    parser.add_argument('--force', action='store_true', help='overwrite files in --out')


def add_seed(parser: argparse.ArgumentParser, help: str = 'of all random numbers') -> None:
    parser.add_argument('--seed', type=int, default=0, metavar='N', help=f'{help} (0)')


def add_timing(parser: argparse.ArgumentParser, seconds: float) -> None:
    """Add what the timing tools share, beside --out; analysis.timing.prepare applies it."""
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:1 (cpu)')
    parser.add_argument('--threads', type=int, metavar='N', help="of the CPU; default: torch's own")
    parser.add_argument(
        '--seconds', type=float, default=seconds, metavar='S', help=f'time for each row ({seconds})'
    )
    parser.add_argument(
        '--rounds', type=int, default=5, metavar='N', help='at least so many of each (5)'
    )
