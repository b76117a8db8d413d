"""What the layers log reaches mmengine's logger, and so a training's log file."""

from mmengine.logging import MMLogger

import mmparc.models  # noqa: F401  forwards the logs
from mmparc.layers import ParCConv


def test_layers_log_to_mmengines_logger(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        saved = ParCConv(4, 4, 7, 'h', bias=False).state_dict()
        ParCConv(4, 4, 9, 'h', bias=False).load_state_dict(saved)
    finally:
        logger.removeHandler(caplog.handler)
    lines = [record.getMessage() for record in caplog.records if record.name == logger.name]
    assert len(lines) == 2  # once each, weight and embedding
    assert all(' 7 ' in line and ' 9 ' in line for line in lines)
