"""Checks how much of a checkpoint fits a model, before the model starts from it.

mmengine loads what fits and logs the rest, so a checkpoint of another model, or one with other
names, would leave a run with random weights.
"""

import logging
from collections.abc import Iterator

from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ..layers import ResizedOnLoad
from .errors import UserError, listed


def check_loaded_share(model: nn.Module, load_from: str | None, minimum: float) -> None:
    """Log, for each checkpoint that the model starts from, the share of it that fits.

    Args:
        model: as built, before its weights are initialised.
        load_from: the checkpoint of the whole model, if there is one.
        minimum: the least share of a checkpoint's values that must fit, 0 to 1.

    Raises:
        UserError: if less than that fits, or a checkpoint holds no weights.
    """
    model = _unwrapped(model)
    for name, module, path, prefix in _starting_points(model, load_from):
        if getattr(module, 'convert_weights', False):  # mmdet's Swin and PVT
            print_log(f'{name} renames the weights of {path} itself: not checked', 'current')
            continue
        saved = _weights(path, prefix)
        if _drops_prefix(module):
            saved = {key.removeprefix('backbone.'): value for key, value in saved.items()}
        own = module.state_dict()
        fitting = {key for key, value in saved.items() if _fits(module, own, key, value)}
        left = [key for key in saved if key not in fitting]
        total = sum(value.numel() for value in saved.values())
        share = sum(saved[key].numel() for key in fitting) / total if total else 0.0
        message = f'{share:.1%} of {path} is loaded into {name}'
        if left:
            message += f' (not {listed(left)})'
        if share < minimum:
            raise UserError(
                f'only {message}: use a checkpoint of this model, or pass a lower share with '
                f'--min-loaded (now {minimum})'
            )
        print_log(message, 'current')
        if missing := [key for key, _ in module.named_parameters() if key not in fitting]:
            print_log(f'{name}: {listed(missing)} start anew', 'current', logging.WARNING)


def check_whole_model(model: nn.Module, load_from: str, prefix: str = '') -> None:
    """Load a checkpoint into the model that is tested, and make sure that it fills the model.

    Weights that the model has no place for, such as those of an auxiliary head that is only
    trained, are left out with a warning.

    Args:
        model: the model, or a part of it.
        load_from: the checkpoint.
        prefix: what the names of the part begin with in the checkpoint: 'backbone.'.

    Raises:
        UserError: if the checkpoint lacks a part of the model, has it in another shape, or is of a
            model with more blocks.
    """
    model = _unwrapped(model)
    try:
        missing, more = model.load_state_dict(_weights(load_from, prefix), strict=False)
        deeper = [key for key in more if _is_of_longer_sequence(model, key)]
        problem = missing and f'it lacks {listed(missing)}'
        problem = problem or (deeper and f'it also has {listed(deeper)}')
        if more and not problem:
            print_log(
                f"'{load_from}' also has {listed(more)}, which this model does not: left out",
                'current',
                logging.WARNING,
            )
    except (RuntimeError, ValueError) as error:  # torch's, and ResizedOnLoad's
        problem = ' '.join(str(error).split())
    if problem:
        raise UserError(
            f"'{load_from}' is no checkpoint of this model: {problem.rstrip('.')}; use the "
            'config that it was trained with'
        )


def _is_of_longer_sequence(module: nn.Module, key: str) -> bool:
    """Whether a weight is of a block after those that the model has in that place."""
    for part in key.split('.')[:-1]:
        children = dict(module.named_children())
        if part not in children:
            return part.isdigit() and isinstance(module, nn.Sequential | nn.ModuleList)
        module = children[part]
    return False


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _starting_points(
    model: nn.Module, load_from: str | None
) -> Iterator[tuple[str, nn.Module, str, str]]:
    """What is loaded: the module's name, the module, the checkpoint, the prefix of its names."""
    for name, module in model.named_modules():
        init_cfg = getattr(module, 'init_cfg', None) or []
        for rule in init_cfg if isinstance(init_cfg, list | tuple) else [init_cfg]:
            if rule.get('type') == 'Pretrained':
                yield name or 'the model', module, rule['checkpoint'], rule.get('prefix') or ''
    if load_from:
        yield 'the model', model, load_from, ''


def _weights(path: str, prefix: str) -> dict[str, Tensor]:
    """A checkpoint's tensors below ``prefix``, by the names that mmengine will look for."""
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    if not isinstance(checkpoint, dict):
        raise UserError(f"'{path}' holds no checkpoint, but a {type(checkpoint).__name__}")
    weights = checkpoint.get('state_dict', checkpoint)
    weights = weights if isinstance(weights, dict) else {}
    tensors = {key: value for key, value in weights.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(
            f"'{path}' holds no weights under 'state_dict': convert a checkpoint of the ParC "
            "authors' code with `python -m mmparc convert_official`"
        )
    # As mmengine does: DataParallel's prefix is dropped only where no other is asked for.
    prefix = prefix and prefix.rstrip('.') + '.'
    if not prefix:
        return {key.removeprefix('module.'): value for key, value in tensors.items()}
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _drops_prefix(module: nn.Module) -> bool:
    """Whether it takes the backbone of a whole model's checkpoint by itself: two packages' Swin."""
    names = 'mmdet.models.backbones.swin', 'mmseg.models.backbones.swin'
    return any(
        kind.__module__ in names and kind.__name__ == 'SwinTransformer'
        for kind in type(module).__mro__
    )


def _fits(module: nn.Module, own: dict[str, Tensor], key: str, value: Tensor) -> bool:
    """Whether a weight has a place in a module, whose own weights are ``own``."""
    if key not in own:
        return False
    path, _, leaf = key.rpartition('.')
    owner = module.get_submodule(path)
    if isinstance(owner, ResizedOnLoad) and leaf in owner.resized_on_load():
        return own[key].shape[:-1] == value.shape[:-1]
    return own[key].shape == value.shape
