"""How much of a checkpoint a model will take, said before the training begins.

mmengine loads what fits and logs the rest, so that a checkpoint of another model, or one saved
under other names, would go unnoticed and the training start from random weights.
"""

from collections.abc import Iterator

from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner.checkpoint import _load_checkpoint
from torch import Tensor, nn

from .errors import UserError


def check_loaded_share(model: nn.Module, load_from: str | None, minimum: float) -> None:
    """Log, for each checkpoint that the model starts from, the share of it that fits.

    Args:
        model: as built, before its weights are initialised.
        load_from: the checkpoint of the whole model, if there is one.
        minimum: the least share of a checkpoint's values that has to find a place, 0 to 1.

    Raises:
        UserError: if less than that fits.
    """
    model = model.module if is_model_wrapper(model) else model
    for name, module, path, prefix in _starting_points(model, load_from):
        saved = _weights(path, prefix)
        total = sum(value.numel() for value in saved.values())
        left = [key for key, value in saved.items() if not _fits(module, key, value)]
        share = 1 - sum(saved[key].numel() for key in left) / total if total else 0.0
        message = f'{share:.1%} of {path} is loaded into {name}'
        if left:
            more = f' and {len(left) - 4} more' if len(left) > 4 else ''
            message += f' (not {", ".join(left[:4])}{more})'
        if share < minimum:
            raise UserError(
                f'only {message}: start from a checkpoint of this model, or lower the least share '
                f'with --min-loaded (now {minimum})'
            )
        print_log(message, logger='current')


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
    checkpoint = _load_checkpoint(path, map_location='cpu')
    state_dict = checkpoint.get('state_dict', checkpoint)
    prefix = prefix + '.' if prefix and not prefix.endswith('.') else prefix
    names = {key: key.removeprefix('module.').removeprefix(prefix) for key in state_dict}
    return {
        short: state_dict[key]
        for key, short in names.items()
        if key.removeprefix('module.').startswith(prefix)
    }


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
