"""Errors that speak to the person at the command line: one line, the cause, the fix."""

import difflib
import functools
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something that the user can mend; the message is one line, the cause and the fix."""


class SampleError(UserError):
    """A sample that cannot be loaded, wherever it is tried.

    What happens in a data loader's process torch raises again here, from the text of the trace,
    whose end is the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition('SampleError: ')[2].strip())


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
            from .refusals import refusal_of  # it needs mmengine, which not all tools import

            said = refusal_of(error)
            if said is None:
                raise
            sys.exit(f'error: {said}')

    return wrapped


def _nobody_reads() -> bool:
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint "did you mean ...?" for a mistyped name, or '' where nothing is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    # first what differs in case alone, then what lacks its scope alone: mmparc.ParCResNet
    close = [lower for lower in by_lower if lower == name.lower()]
    close += [lower for lower in by_lower if lower.endswith(f'.{name.lower()}')]
    close += difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean '{by_lower[close[0]]}'?" if close else ''


def first_line(error: Exception) -> str:
    """What an error says, in one line; upstream's often say nothing."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__
