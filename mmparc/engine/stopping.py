"""How a training ends early: by Ctrl-C, by a cluster's SIGTERM, or on a full disk."""

import contextlib
import errno
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from mmengine.dist import is_main_process

from .errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def stops_in_one_line(work_dir: str) -> Iterator[None]:
    """End the block at SIGINT or SIGTERM with one line and exit code 128 + the signal's number.

    A SIGINT that is ignored, as in a shell's background, stays so; a second signal ends the process
    at once. A full or read-only disk is a UserError.
    """
    stopped = []
    process = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != process:  # a loader's worker, which its parent ends after Ctrl-C
            if number == signal.SIGTERM:
                os._exit(0)
            return
        stopped.append(number)
        for each in before:
            signal.signal(each, signal.SIG_DFL)  # a second one ends the process
        # torch's watch over its workers must not interfere; with SIG_DFL Python would print that it
        # ignores a SIGCHLD which has already come
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for worker in multiprocessing.active_children():
            worker.kill()
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.getsignal(n) for n in signals if signal.getsignal(n) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except BaseException as error:
        if stopped:  # the interruption, or an error that it caused on its way
            if is_main_process():
                name = signal.Signals(stopped[0]).name
                print(f'stopped by {name}: {_how_to_go_on(work_dir)}', file=sys.stderr)
            # Not sys.exit: an interrupted torch.save writes to its closed buffer when it is freed,
            # which aborts the process.
            for worker in multiprocessing.active_children():
                worker.join()
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(128 + stopped[0])
        if isinstance(error, OSError) and error.errno in _FULL:
            raise UserError(
                f'{error.filename or "a file"} could not be written ({error.strerror}): free some '
                f'space, then {_how_to_go_on(work_dir)}'
            ) from error
        raise
    finally:
        for number, handler in before.items() if not stopped else ():
            signal.signal(number, handler)


def _how_to_go_on(work_dir: str) -> str:
    latest = Path(work_dir, 'last_checkpoint')
    if latest.is_file():
        return f'the same command with --resume continues from {latest.read_text()}'
    return f'the same command starts again, since {work_dir} has no checkpoint yet'
