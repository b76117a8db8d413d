"""Errors that speak to the person at the command line: one line, the cause, the fix."""

import difflib
from collections.abc import Iterable

from mmparc.errors import UserError


class SampleError(UserError):
    """A sample that cannot be loaded, wherever it is tried.

    What happens in a data loader's process torch raises again here, from the text of the trace,
    whose end is the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition('SampleError: ')[2].strip())


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
