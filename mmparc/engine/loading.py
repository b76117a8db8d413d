"""What a model will take of a checkpoint, said before it runs.

mmengine loads what fits and logs the rest, so that a checkpoint of another model, or one saved
under other names, would go unnoticed and the run start from random weights.
"""

import logging
import pickle
from collections.abc import Iterator, Sequence

from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from .errors import UserError, first_line

NAMED = 4  # how many names a message lists


def check_loaded_share(model: nn.Module, load_from: str | None, minimum: float) -> None:
    """Log, for each checkpoint that the model starts from, the share of it that fits.

    Args:
        model: as built, before its weights are initialised.
        load_from: the checkpoint of the whole model, if there is one.
        minimum: the least share of a checkpoint's values that has to find a place, 0 to 1.

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
        left = [key for key, value in saved.items() if not _fits(module, key, value)]
        total = sum(value.numel() for value in saved.values())
        share = 1 - sum(saved[key].numel() for key in left) / total if total else 0.0
        message = f'{share:.1%} of {path} is loaded into {name}'
        if left:
            message += f' (not {_listed(left)})'
        if share < minimum:
            raise UserError(
                f'only {message}: start from a checkpoint of this model, or lower the least share '
                f'with --min-loaded (now {minimum})'
            )
        print_log(message, 'current')
        if missing := _missing(module, saved):
            print_log(f'{name}: {_listed(missing)} start anew', 'current', logging.WARNING)


def check_whole_model(model: nn.Module, load_from: str, prefix: str = '') -> None:
    """Make sure, by loading it, that a checkpoint holds the whole of the model that is tested.

    Args:
        model: the model, or a part of it.
        load_from: the checkpoint.
        prefix: what the names of the part begin with in the checkpoint: 'backbone.'.

    What the model does not have at all, such as an auxiliary head that is cut off for tests, is
    left out with a warning.

    Raises:
        UserError: if a part of the model is not in it, or has another shape there, or it is of a
            model with more blocks.
    """
    model = _unwrapped(model)
    try:
        missing, more = model.load_state_dict(_weights(load_from, prefix), strict=False)
        deeper = [key for key in more if _is_of_longer_sequence(model, key)]
        problem = missing and f'it lacks {_listed(missing)}'
        problem = problem or (deeper and f'it also has {_listed(deeper)}')
        if more and not problem:
            print_log(
                f"'{load_from}' holds more than this model, which leaves it out: {_listed(more)}",
                'current',
                logging.WARNING,
            )
    except (RuntimeError, ValueError) as error:  # torch's, and ResizedOnLoad's
        problem = ' '.join(str(error).split())
    if problem:
        raise UserError(
            f"'{load_from}' is no checkpoint of this model: {problem.rstrip('.')}; take the config "
            'that it was trained with'
        )


def _is_of_longer_sequence(module: nn.Module, key: str) -> bool:
    """Whether a checkpoint's weight is of a block after those that the model has in that place."""
    for part in key.split('.')[:-1]:
        inner = module._modules.get(part)
        if inner is None:
            return part.isdigit() and isinstance(module, nn.Sequential | nn.ModuleList)
        module = inner
    return False


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _listed(names: Sequence[str]) -> str:
    more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
    return ', '.join(names[:NAMED]) + more


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
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:  # torch's
        said = first_line(error).partition('. ')[0]  # and not how to switch safe loading off
        raise UserError(
            f"'{path}' cannot be read as a checkpoint: {said}: take another file"
        ) from error
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


def _missing(module: nn.Module, saved: dict[str, Tensor]) -> list[str]:
    """The module's parameters that get nothing from these weights."""
    names = (name for name, _ in module.named_parameters())
    return [name for name in names if name not in saved or not _fits(module, name, saved[name])]


def _fits(module: nn.Module, key: str, value: Tensor) -> bool:
    path, _, leaf = key.rpartition('.')
    try:
        owner = module.get_submodule(path)
    except AttributeError:
        return False
    own = owner._parameters.get(leaf, owner._buffers.get(leaf))
    if own is None:
        return False
    # A ResizedOnLoad, told by its method: to import it would import mmpretrain at every start.
    if leaf in getattr(owner, 'resized_on_load', dict)():
        return own.shape[:-1] == value.shape[:-1]
    return own.shape == value.shape
