"""How a tool ends: with one line and an exit code where the user can mend it, else with a trace."""

import functools
import os
import select
import signal
import sys
from collections.abc import Callable

from .errors import UserError
from .refusals import refusal_of


def exit_on_user_error(main: Callable[[], None]) -> Callable[[], None]:
    """Let ``main`` end a :class:`UserError` with 'error: ...' and exit code 1, not a trace.

    So does what :func:`~mmparc.engine.refusals.refusal_of` says to be no fault of the code. Ctrl-C
    ends it with exit code 130, a reader who has seen enough (``| head``) in silence with 141.
    """

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
            sys.stdout.flush()
        except UserError as error:
            sys.exit(f'error: {error}')
        except KeyboardInterrupt:
            print('interrupted', file=sys.stderr)
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(128 + signal.SIGPIPE)
            said = refusal_of(error)
            if said is None:
                raise
            sys.exit(f'error: {said}')

    return wrapped


def _nobody_reads() -> bool:
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))
