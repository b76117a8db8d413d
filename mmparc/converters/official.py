"""State dicts of the authors' published code to those of mmpretrain classifiers, and back.

A family reads the backbone's config from the reference's shapes. The classifier of that config has
the names and shapes that must be there; a missing or unknown name is an error. Only shapes change:
the published code keeps kernels and embeddings in four dimensions, (C, C / groups, K, 1) and
(1, C, K, 1) for axis H, (..., 1, K) for axis W.
"""

from collections.abc import Iterable

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from .families import FAMILIES, Family, StateDict, axis_of

NAMED = 5  # how many names an error lists


def backbone_config(state_dict: StateDict, model: str) -> dict:
    """The config of the mmparc backbone that a reference state dict is for.

    Args:
        state_dict: of the reference code.
        model: a key of :data:`FAMILIES`.

    Raises:
        ValueError: if the model is unknown, or the state dict is not one of it.
    """
    family = _family(model)
    try:
        return family.backbone_config(state_dict)
    except ValueError as error:
        raise ValueError(f"this is not a reference state dict of '{model}': {error}") from None


def convert_official(state_dict: StateDict, model: str) -> dict[str, Tensor]:
    """Turn a state dict of the reference code into one of an mmpretrain ImageClassifier.

    Args:
        state_dict: of the reference code, the weights alone and not a whole checkpoint.
        model: a key of :data:`FAMILIES`.

    Returns:
        The same values under the names 'backbone.' and 'head.fc.'; :func:`backbone_config` gives
        the backbone that loads them strictly.

    Raises:
        ValueError: if the model is unknown, keys are missing or left over, or shapes do not fit.
    """
    family = _family(model)
    template = _template(state_dict, model)
    names = family.official_names(template)
    copies = set(_copies(family, names.values()))
    _check_names(names.values(), set(state_dict) - copies, f"this '{model}' state dict")
    converted = {}
    for name, official in names.items():
        value, own = state_dict[official], template[name]
        expected = _official_view(own, official).shape
        if value.shape != expected:
            raise ValueError(
                f"'{official}' is {tuple(value.shape)}, but {tuple(expected)} by the shapes of the "
                f'other tensors'
            )
        converted[name] = value.reshape(own.shape)
    return converted


def convert_to_official(state_dict: StateDict, model: str) -> dict[str, Tensor]:
    """Turn a state dict of an mmpretrain ImageClassifier into one of the reference code.

    Args:
        state_dict: with the names 'backbone.' and 'head.fc.'.
        model: a key of :data:`FAMILIES`.

    Returns:
        The same values, as the reference code names and shapes them.

    Raises:
        ValueError: if the model is unknown, keys are missing or left over, or shapes do not fit.
    """
    family = _family(model)
    names = family.official_names(state_dict)
    official = {new: _official_view(state_dict[name], new) for name, new in names.items()}
    template = _template(official, model)
    _check_names(template, state_dict, f"this state dict of an mmparc '{model}' classifier")
    official.update((copy, official[name]) for copy, name in _copies(family, official).items())
    convert_official(official, model)  # for its check of the shapes
    return official


def _family(model: str) -> Family:
    if model not in FAMILIES:
        raise ValueError(f'model must be one of {tuple(FAMILIES)}, got {model!r}')
    return FAMILIES[model]


def _template(official: StateDict, model: str) -> dict[str, Tensor]:
    """The state dict of a classifier with the config that the reference's shapes give."""
    head = _family(model).official_names(['head.fc.weight'])['head.fc.weight']
    if head not in official or official[head].dim() != 2:
        raise ValueError(f"this is not a classifier '{model}': it has no '{head}'")
    num_classes, in_channels = official[head].shape
    cfg = dict(
        type='ImageClassifier',
        backbone=backbone_config(official, model),
        head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=in_channels),
        _scope_='mmpretrain',
    )
    # Not on the meta device: mmpretrain's backbones call .item() on what they build.
    with torch.random.fork_rng(devices=[]):
        return MODELS.build(cfg).state_dict()


def _official_view(value: Tensor, official_name: str) -> Tensor:
    """A kernel (C, C / groups, K) or an embedding (C, K) as the reference shapes it."""
    axis = axis_of(official_name)
    if axis is None or value.dim() not in (2, 3):
        return value
    value = value[None] if value.dim() == 2 else value
    return value[..., None] if axis == 'H' else value[..., None, :]


def _copies(family: Family, names: Iterable[str]) -> dict[str, str]:
    """The reference's second copies of these names, each with the name that it is a copy of.

    Their values are not looked at: when the published code loads them, the originals win.
    """
    return {
        copy + name.removeprefix(original): name
        for copy, original in family.copies.items()
        for name in names
        if name.startswith(original)
    }


def _check_names(expected: Iterable[str], found: Iterable[str], what: str) -> None:
    expected, found = set(expected), set(found)
    problems = []
    for verb, names in (('lacks', expected - found), ('has left over', found - expected)):
        if names:
            listed = ', '.join(sorted(names)[:NAMED]) + (', ...' if len(names) > NAMED else '')
            problems.append(f'{verb} {len(names)} of its keys: {listed}')
    if problems:
        raise ValueError(f'{what} {"; it ".join(problems)}')
