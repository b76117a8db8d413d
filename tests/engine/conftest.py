"""What mmengine and torch load is set for a whole process: fixtures that restore it."""

from collections.abc import Iterator

import pytest
import torch
from helpers import OLD_TORCH
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_http, load_from_local

from mmparc import engine


@pytest.fixture
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Starts a test as a process that has allowed nothing, and ends what the test allows."""
    own = {'': load_from_local, 'http://': load_from_http}
    schemes = {**CheckpointLoader._schemes, **own}
    monkeypatch.setattr(CheckpointLoader, '_schemes', schemes)
    for name in ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'):
        monkeypatch.setenv(name, '0')  # restored, whatever the test makes of it
        monkeypatch.delenv(name)
    before = [] if OLD_TORCH else torch.serialization.get_safe_globals()
    if not OLD_TORCH:
        torch.serialization.clear_safe_globals()
    yield
    if not OLD_TORCH:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


@pytest.fixture
def allowed(nothing_allowed: None) -> None:
    """Lets a test load mmengine's checkpoints, as the tools do."""
    engine.allow_mmengine_checkpoints()
