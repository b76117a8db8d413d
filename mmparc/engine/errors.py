"""Error messages for the person at the command line: one line, the cause, what to do."""

import difflib
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from mmparc.errors import UserError


class SampleError(UserError):
    """A sample that cannot be loaded.

    torch raises a worker's error again in the main process, made from the text of its trace, which
    ends with the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition('SampleError: ')[2].strip())


@contextmanager
def building(what: str = 'the run') -> Iterator[None]:
    """Turn any exception inside the block into a UserError that names what was built and the cause.

    Upstream's constructors raise any type of exception for a wrong setting. The original one stays
    the cause, which ``--traceback`` shows.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'cannot build {what}: {cause_of(error)}') from error


def cause_of(error: Exception) -> str:
    """What an exception says, in one line; without a message, the source line that raised it."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"'{error.filename}': {error.strerror}"
    if str(error).strip():
        return first_line(error).removeprefix('ValueError: ')
    line = traceback.extract_tb(error.__traceback__)[-1].line
    return f'{type(error).__name__} in `{line}`'


def first_line(error: Exception) -> str:
    """An error's type and first line."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint "did you mean ...?" for a mistyped name, or '' if no name is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    # first names that differ in case, then in their scope: mmparc.ParCResNet
    close = [lower for lower in by_lower if lower == name.lower()]
    close += [lower for lower in by_lower if lower.endswith(f'.{name.lower()}')]
    close += difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean '{by_lower[close[0]]}'?" if close else ''
