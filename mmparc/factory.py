"""ParC backbones by name, as timm has its models.

The names and their settings are those of configs/_base_/backbones, one file an architecture.
"""

import difflib
import logging
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mmparc.home import home

if TYPE_CHECKING:
    from torch import nn


def list_backbones(pattern: str = '') -> list[str]:
    """The names that :func:`create_backbone` takes, or those that match: '*resnet*' for example."""
    return sorted(name for name in _files() if fnmatch(name, pattern or '*'))


def create_backbone(name: str, **kwargs) -> 'nn.Module':
    """Build a ParC backbone and draw its initial weights.

    It takes images (B, 3, H, W) and returns a tuple of the outputs of ``out_indices``.

    Args:
        name: one of :func:`list_backbones`, such as 'parc_convnext_xt'.
        kwargs: arguments of the backbone's class, such as ``img_size``, ``out_indices`` or
            ``backend``. They take the place of the architecture's own.

    Raises:
        ValueError: if the name is unknown.
        TypeError: if the backbone has no such argument.
        ImportError: if OpenMMLab is not installed.
    """
    files = _files()
    if name not in files:
        close = difflib.get_close_matches(name, files, n=1)
        hint = f"did you mean '{close[0]}'?" if close else 'mmparc.list_backbones() lists them'
        raise ValueError(f"there is no backbone '{name}': {hint}")
    missing = [package for package in ('mmengine', 'mmcv', 'mmpretrain') if not find_spec(package)]
    if missing:
        raise ImportError(
            f"{', '.join(missing)} not installed, which backbones need: pip install 'mmparc[mm]'"
        )

    from mmengine.config import Config
    from mmengine.logging import MMLogger

    from mmparc.registry import MODELS

    fragment = Config.fromfile(files[name])
    settings = Config(dict(backbone=fragment.plain))
    settings.merge_from_dict(dict(backbone=fragment.parc))
    backbone = MODELS.build(dict(settings.backbone, **kwargs))
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # mmengine logs each parameter's rule at INFO
    try:
        backbone.init_weights()
    finally:
        logger.setLevel(level)
    return backbone


def _files() -> dict[str, Path]:
    """{name: file}; resnet50.py has the name 'parc_resnet50', parcnet-s.py 'parcnet_s'."""
    files = (home() / 'configs/_base_/backbones').glob('*.py')
    names = {file: file.stem.replace('-', '_') for file in files}
    return {n if n.startswith('parc') else f'parc_{n}': file for file, n in names.items()}
