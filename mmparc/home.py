"""Where the configs and tools lie that come with mmparc."""

from pathlib import Path


def home() -> Path:
    """The folder of configs/ and tools/: ``.mim`` in an installed mmparc, else the checkout.

    Raises:
        FileNotFoundError: if mmparc came without them, as no wheel of ours does.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / '.mim', package.parent):
        if (folder / 'configs' / '_base_' / 'backbones').is_dir():
            return folder
    raise FileNotFoundError(
        f"mmparc's configs and tools are neither in {package / '.mim'} nor in {package.parent}: "
        'install its wheel or a checkout (pip install -e .)'
    )
