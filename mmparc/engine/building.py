"""The build phase: whatever a model, data set or optimizer raises becomes one line."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import UserError, first_line


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
