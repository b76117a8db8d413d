"""The backbones that can be swapped in: the fragments of configs/_base_/backbones, by name."""

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmparc.engine import UserError
from mmparc.engine.errors import suggest
from mmparc.home import home

# Where a fragment names no others.
STRIDES = (4, 8, 16, 32)
IMAGES = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], rgb=True)


@dataclass(frozen=True)
class Fragment:
    """A backbone's settings, and its outputs of these strides, as a rule 4, 8, 16 and 32.

    ``for_maps`` are the settings for these outputs, where they are not those of a classifier.
    ``frozen_stages`` is that setting with the stem and the stages up to each output fixed, and
    ``images`` how its classifier sees them: mean, std, and whether RGB or BGR.
    """

    settings: ConfigDict
    for_maps: ConfigDict
    out_indices: tuple[int, ...]
    strides: tuple[int, ...]
    frozen_stages: tuple[int, ...]
    images: dict


def backbone_names() -> list[str]:
    """The names that :func:`load_fragment` takes, each architecture's ParC model before the plain.

    A fragment resnet50.py gives 'parc-resnet50' and 'resnet50'. One whose own name begins with
    'parc' has another architecture for its twin, with a name of its own: parcnet-s, mobilevit-s.
    """
    return list(_files())


def twin_names() -> list[tuple[str, str]]:
    """Each ParC model with its plain twin; both are of :func:`backbone_names`."""
    parc = [(name, file) for name, (file, twin) in _files().items() if twin == 'parc']
    return [(name, _plain_name(file)) for name, file in parc]


def load_fragment(name: str) -> Fragment:
    """Load a backbone by name.

    Raises:
        UserError: if there is no such backbone.
    """
    known = backbone_names()
    if name not in known:
        hint = suggest(name, known) or f'take one of {", ".join(known)}'
        raise UserError(f"there is no backbone '{name}': {hint}")
    file, twin = _files()[name]
    fragment = Config.fromfile(file)
    settings = Config(dict(backbone=fragment.plain))
    if twin == 'parc':
        settings.merge_from_dict(dict(backbone=fragment.parc))  # as the configs do
        for_maps = settings.backbone
    else:
        for_maps = fragment.get('plain_stride_32', settings.backbone)
    for_maps = ConfigDict(for_maps, **fragment.get('maps', {}))
    outputs = fragment.out_indices
    return Fragment(
        settings.backbone,
        for_maps,
        tuple(outputs),
        strides=tuple(fragment.get('strides', STRIDES)),
        frozen_stages=tuple(fragment.get('frozen_stages', [i + 1 for i in outputs])),
        images=dict(fragment.get('images', IMAGES)),
    )


def _files() -> dict[str, tuple[Path, str]]:
    """{name: (file, 'parc' or 'plain')}; a network with a file of its own is not another's twin."""
    found: dict[str, tuple[Path, str]] = {}
    for file in sorted((home() / 'configs/_base_/backbones').glob('*.py')):
        if file.stem.endswith('-narrow'):  # of the synthetic relations: one map, no pyramid
            continue
        if file.stem.startswith('parc'):
            found[file.stem] = file, 'parc'
            found.setdefault(_plain_name(file), (file, 'plain'))
        else:
            found[f'parc-{file.stem}'] = file, 'parc'
            found[file.stem] = file, 'plain'
    return found


def _plain_name(file: Path) -> str:
    return Config.fromfile(file).plain_name if file.stem.startswith('parc') else file.stem
