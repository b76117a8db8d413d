"""Error messages for the person at the command line: one line, the cause, what to do."""

import difflib
from collections.abc import Iterable

from mmparc.errors import UserError


class SampleError(UserError):
    """A sample that cannot be loaded.

    torch raises a worker's error again in the main process, made from the text of its trace, which
    ends with the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition('SampleError: ')[2].strip())


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint "did you mean ...?" for a mistyped name, or '' if no name is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    # first names that differ in case, then in their scope: mmparc.ParCResNet
    close = [lower for lower in by_lower if lower == name.lower()]
    close += [lower for lower in by_lower if lower.endswith(f'.{name.lower()}')]
    close += difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean '{by_lower[close[0]]}'?" if close else ''


def first_line(error: Exception) -> str:
    """An error's type and first line."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__
