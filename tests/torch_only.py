"""Environments with torch and a few named distributions alone, made of this one's files."""

import sys
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from helpers import ROOT
from packaging.requirements import Requirement


def torch_only_env(folder: Path, *extra_distributions: str) -> list[str]:
    """Make a virtual environment with mmparc and torch, and with nothing that these do not need.

    Its packages are links to this environment's, so it is made in a second.

    Args:
        folder: where to make it; must not exist, or be empty.
        extra_distributions: the names of distributions to add, such as 'timm', with what they need.

    Returns:
        The command that runs its Python, to be followed by '-c' and code, or by a script. It
        ignores PYTHONPATH and the current folder.
    """
    venv.EnvBuilder(symlinks=True).create(folder)
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    site_packages = folder / 'lib' / version / 'site-packages'
    (site_packages / 'mmparc').symlink_to(ROOT / 'mmparc')
    for distribution in _closure(('torch', *extra_distributions)):
        for name in {file.parts[0] for file in distribution.files or ()} - {'..', '__pycache__'}:
            link = site_packages / name
            if not link.exists():  # several distributions share the folder 'nvidia'
                link.symlink_to(distribution.locate_file(name))
    return [str(folder / 'bin' / 'python'), '-I']


def _closure(names: tuple[str, ...]) -> Iterator[metadata.Distribution]:
    """These distributions and all that they need."""
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = metadata.distribution(name)
        yield distribution
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({'extra': ''}):
                waiting.append(requirement.name)
