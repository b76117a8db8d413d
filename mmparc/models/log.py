"""Forwards what mmparc's layers log to mmengine's logger, and so to a training's log file.

The layers need torch alone, so they log through ``logging.getLogger('mmparc')``.
"""

import logging

from mmengine.logging import print_log


class MMEngineHandler(logging.Handler):
    """Passes each record to mmengine's current logger."""

    def emit(self, record: logging.LogRecord) -> None:
        print_log(record.getMessage(), logger='current', level=record.levelno)


def forward_logs() -> None:
    """Send the 'mmparc' logger's records, from INFO on by default, to mmengine's logger."""
    logger = logging.getLogger('mmparc')
    if not any(isinstance(handler, MMEngineHandler) for handler in logger.handlers):
        logger.addHandler(MMEngineHandler())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
