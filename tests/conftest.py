"""What every test shares: one thread a worker, and the same random numbers each run."""

import gc
import sys

import pytest
import torch
from helpers import read_metafiles_once

import mmparc  # noqa: F401  offers its operators to mmcv, before any test imports it

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # what has been imported stays; no collection needs to look through it again


@pytest.fixture(scope='session', autouse=True)
def upstreams_metafiles():
    if 'mmengine' in sys.modules:  # not where the operator is tested alone
        read_metafiles_once()


@pytest.fixture(scope='module', autouse=True)
def scopes_end():
    """A Runner's scope stays the default one: tests of other files shall not build in it."""
    registry = sys.modules.get('mmengine.registry')  # absent where the operator is tested alone
    scopes = registry.DefaultScope._instance_dict if registry else {}
    before = dict(scopes)
    yield
    scopes.clear()
    scopes.update(before)
