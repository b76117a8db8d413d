"""The backbones that can be swapped in: the fragments of configs/_base_/backbones, by name."""

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmparc.engine import UserError
from mmparc.engine.errors import suggest
from mmparc.home import home


@dataclass(frozen=True)
class Fragment:
    """A backbone's settings, and its outputs of strides 4, 8, 16 and 32.

    ``for_maps`` are the settings for these outputs, where they are not those of a classifier.
    """

    settings: ConfigDict
    for_maps: ConfigDict
    out_indices: tuple[int, ...]


def backbone_names() -> list[str]:
    """The names that :func:`load_fragment` takes, each architecture's ParC model before the plain.

    A fragment resnet50.py gives 'parc-resnet50' and 'resnet50'. One whose own name begins with
    'parc' has another architecture for its twin, with a name of its own: parcnet-s, mobilevit-s.
    """
    return [name for names in _files() for name in names]


def load_fragment(name: str) -> Fragment:
    """Load a backbone by name.

    Raises:
        UserError: if there is no such backbone.
    """
    known = backbone_names()
    if name not in known:
        hint = suggest(name, known) or f'take one of {", ".join(known)}'
        raise UserError(f"there is no backbone '{name}': {hint}")
    ((parc_name, _), file), *_ = (item for item in _files().items() if name in item[0])
    fragment = Config.fromfile(file)
    settings = Config(dict(backbone=fragment.plain))
    if name == parc_name:
        settings.merge_from_dict(dict(backbone=fragment.parc))  # as the configs do
        for_maps = settings.backbone
    else:
        for_maps = fragment.get('plain_stride_32', settings.backbone)
    return Fragment(settings.backbone, for_maps, tuple(fragment.out_indices))


def _files() -> dict[tuple[str, str], Path]:
    """{(name of the ParC model, name of the plain one): file}"""
    found = {}
    for file in sorted((home() / 'configs/_base_/backbones').glob('*.py')):
        if file.stem.startswith('parc'):
            names = file.stem, Config.fromfile(file).plain_name
        else:
            names = f'parc-{file.stem}', file.stem
        found[names] = file
    return found
