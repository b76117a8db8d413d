"""Layer-wise learning-rate decay for any backbone and all three tasks.

mmpretrain's constructor, which uses ``model.backbone.get_layer_depth``, with the settings of
mmdet's and mmseg's LearningRateDecayOptimizerConstructor. A ConvNeXt gets the same rates and weight
decays as from those, which know no other backbone.
"""

import re

from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

from mmparc.registry import OPTIM_WRAPPER_CONSTRUCTORS

DECAY_TYPES = ('layer_wise', 'stage_wise')
DEFAULTS = dict(
    decay_rate=None,
    decay_type='layer_wise',
    num_layers=None,
    bias_decay_mult=0.0,
    norm_decay_mult=None,
    flat_decay_mult=0.0,
    custom_keys={},
)
PREFIX = 'backbone.'
# ConvNeXt's 'stages.0.', ResNet's 'layer1.', MobileViT's 'layers.0.'
STAGE = re.compile(re.escape(PREFIX) + r'(?:stages\.|layer|layers\.)(\d+)\.')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """The learning rate falls by ``decay_rate`` with each layer from the head to the stem.

    A parameter of layer i has the rate lr * decay_rate ** (num_layers + 1 - i). Layer
    num_layers + 1 is all that follows the backbone's last layer: its output norms, necks, heads.
    Biases, other one-dimensional parameters and position embeddings (``pos_embed``) have no weight
    decay. Parameters of one layer and weight decay form a group, with ``lr_scale`` and
    ``param_names`` in it.

    Args:
        optim_wrapper_cfg: the optimizer wrapper; its optimizer must have lr and weight_decay.
        paramwise_cfg: a dict with

            - decay_rate (float): usually below 1.
            - decay_type (str): 'layer_wise', by the layers of ``get_layer_depth`` (the default), or
              'stage_wise': the stages are layers 1, 2, ..., the stem and what lies between stages
              layer 0. With num_layers it takes any backbone that names its stages.
            - num_layers (int): by default the backbone's own: 6 for ConvNeXt-T and ResNet-50, 12
              for ConvNeXt-S and above.
            - bias_decay_mult, norm_decay_mult, flat_decay_mult, custom_keys: as in mmpretrain's
              constructor, the first and third 0 by default.

    Raises:
        ValueError: if a setting is missing or unknown, or the backbone has no layers to go by.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        settings = {**DEFAULTS, **(paramwise_cfg or {})}
        _check(settings, optim_wrapper_cfg['optimizer'])
        settings['layer_decay_rate'] = settings['decay_rate']
        super().__init__(optim_wrapper_cfg, settings)

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Append the parameter groups of a whole model to ``params``."""
        if 'get_layer_depth' in kwargs:  # the parent on its way down
            super().add_params(params, module, **kwargs)
            return
        layers, count = self._layers(module)
        single: list[dict] = []
        super().add_params(single, module, get_layer_depth=lambda name: (layers[name], count))
        # The parent gives each parameter a group of its own, a shared one under each of its names.
        first_names = dict(module.named_parameters())
        groups: dict[tuple, dict] = {}
        for group in single:
            name = group.pop('param_name')
            if name not in first_names:
                continue
            if name.rpartition('.')[2] == 'pos_embed':
                group['weight_decay'] = 0.0
            key = (group['layer_id'], group['weight_decay'])
            merged = groups.setdefault(key, {**group, 'params': [], 'param_names': []})
            merged['params'] += group['params']
            merged['param_names'].append(name)
        params.extend(groups.values())

    def _layers(self, model: nn.Module) -> tuple[dict[str, int], int]:
        """The layer of each parameter by name, and the number of all layers with 0 and the last."""
        backbone = getattr(model, 'backbone', None)
        what = f"the backbone '{type(backbone).__name__}'"
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        inside = [name for name in names if name.startswith(PREFIX)]
        number = self.paramwise_cfg['num_layers']
        layer_wise = self.paramwise_cfg['decay_type'] == 'layer_wise'
        if layer_wise or number is None:
            depths = _depths(backbone, inside, what)
            own = depths[inside[0]][1] - 2
            number = own if number is None else number
        if layer_wise:
            # Upstream's layers are those of get_layer_depth, except that the last stage is always
            # layer num_layers: layers which the backbone does not have lie in front of it.
            layers = {n: d + (number - own if d >= own else 0) for n, (d, _) in depths.items()}
            needed = own
        else:
            layers = _stages(inside, what)
            needed = max(layers.values())
        if number < needed:
            raise ValueError(
                f'num_layers={number} is too few for {what}, part of which would learn faster '
                f'than the head: set num_layers={needed}'
            )
        return {name: layers.get(name, number + 1) for name in names}, number + 2


def _depths(backbone: nn.Module, names: list[str], what: str) -> dict[str, tuple[int, int]]:
    """The backbone's own layer of each parameter, and how many it has."""
    if not hasattr(backbone, 'get_layer_depth'):
        raise ValueError(
            f'layer decay needs get_layer_depth(), which {what} lacks: use a backbone '
            "that has it, or set decay_type='stage_wise' and num_layers"
        )
    try:
        return {name: backbone.get_layer_depth(name, PREFIX) for name in names}
    except NotImplementedError:  # mmpretrain's ResNet-18, for one
        raise ValueError(
            f'get_layer_depth() of {what} does not know its number of blocks: use another '
            "depth, or set decay_type='stage_wise' and num_layers"
        ) from None


def _stages(names: list[str], what: str) -> dict[str, int]:
    """1, 2, ... for the parameters of the stages, 0 for those registered in front of the last one.

    Those behind the stages (output norms, a last convolution) are left out.
    """
    found = {name: int(match[1]) for name in names if (match := STAGE.match(name))}
    if not found:
        raise ValueError(
            f"decay_type='stage_wise' finds no stages in {what} (stages.N, layerN or layers.N): "
            "set decay_type='layer_wise'"
        )
    first = min(found.values())
    last = max(i for i, name in enumerate(names) if name in found)
    return {name: found[name] - first + 1 if name in found else 0 for name in names[: last + 1]}


def _check(settings: dict, optimizer: dict) -> None:
    unknown = [key for key in settings if key not in DEFAULTS]
    if unknown:
        raise ValueError(
            f'layer decay has no setting {unknown[0]!r}: paramwise_cfg takes {", ".join(DEFAULTS)}'
        )
    if settings['decay_type'] not in DECAY_TYPES:
        raise ValueError(f'decay_type must be one of {DECAY_TYPES}, got {settings["decay_type"]!r}')
    if not settings['decay_rate'] or settings['decay_rate'] < 0:
        raise ValueError(
            f'paramwise_cfg.decay_rate must be positive, such as 0.9, got {settings["decay_rate"]}'
        )
    for key, custom in settings['custom_keys'].items():
        if set(custom) - {'decay_mult'}:
            raise ValueError(
                f'layer decay sets the learning rates itself: custom_keys[{key!r}] can hold '
                f'decay_mult alone, got {dict(custom)}'
            )
    if optimizer.get('lr') is None or optimizer.get('weight_decay') is None:
        raise ValueError('layer decay scales lr and weight_decay: give the optimizer both')
