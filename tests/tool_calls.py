"""Calls the tools' main functions in the test's own process, which costs no import."""

import contextlib
import importlib.util
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import cv2
import numpy as np
import pytest
from helpers import ROOT

from mmparc import tool
from mmparc.errors import UserError


def load_tool(path: str) -> ModuleType:
    """A script of tools/ as a module; its main is not run."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / 'tools' / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def call(path: str, *args: object, cwd: Path) -> str:
    """Run a script of tools/ in a folder; what it printed. Its UserError passes through."""
    module, said = load_tool(path), io.StringIO()
    argv = [path, *map(str, args)]
    silent = mock.patch.object(tool, 'quiet')  # it would last beyond the call
    with inside(cwd), mock.patch('sys.argv', argv), silent, contextlib.redirect_stdout(said):
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter('ignore')
            module.main(module.make_parser().parse_args())
    return said.getvalue()


def refusal(path: str, *args: object, cwd: Path) -> str:
    """The one line by which a script of tools/ refuses its arguments; it changes no file."""
    before = {file: file.stat().st_mtime_ns for file in cwd.rglob('*') if file.is_file()}
    with pytest.raises(UserError) as refused:
        call(path, *args, cwd=cwd)
    assert {f: f.stat().st_mtime_ns for f in cwd.rglob('*') if f.is_file()} == before
    line = str(refused.value)
    assert line and '\n' not in line
    return line


def assert_picture(path: Path, width: int = 200) -> None:
    """It can be read, is so large, and shows something."""
    picture = cv2.imread(str(path))
    assert picture is not None and picture.shape[1] > width and picture.shape[0] > 60
    assert picture.std() > 5 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
