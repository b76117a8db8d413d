"""The earlier name of :func:`mmparc.tool.one_line_errors`, for tools that have not moved yet."""

import functools
from collections.abc import Callable

from mmparc.tool import one_line_errors

from . import refusals  # noqa: F401  tool asks it for the line of an exception


def exit_on_user_error(main: Callable[[], None]) -> Callable[[], None]:
    """Run ``main`` under :func:`mmparc.tool.one_line_errors`."""

    @functools.wraps(main)
    def wrapped() -> None:
        with one_line_errors():
            main()

    return wrapped
