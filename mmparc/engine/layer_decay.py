"""Layer-wise learning-rate decay for any backbone and all three tasks.

mmpretrain's constructor, which uses ``model.backbone.get_layer_depth``, with the settings of
mmdet's and mmseg's LearningRateDecayOptimizerConstructor. A ConvNeXt gets the same rates and weight
decays as from those, which know no other backbone.
"""

import re

from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

from mmparc.registry import OPTIM_WRAPPER_CONSTRUCTORS

DEFAULTS = dict(
    decay_rate=1.0,
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
              layer 0, in any backbone that names its stages.
            - num_layers (int): by default the backbone's own: 6 for ConvNeXt-T and ResNet-50, 12
              for ConvNeXt-S and above; with 'stage_wise' the number of stages.
            - bias_decay_mult, norm_decay_mult, flat_decay_mult, custom_keys: as in mmpretrain's
              constructor, the first and third 0 by default.

    Raises:
        ValueError: if a setting is unknown, or the backbone has no layers to go by.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        settings = {**DEFAULTS, **(paramwise_cfg or {})}
        if unknown := set(settings) - set(DEFAULTS):
            raise ValueError(
                f'layer decay has no setting {min(unknown)!r}: paramwise_cfg takes '
                f'{", ".join(DEFAULTS)}'
            )
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
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        inside = [name for name in names if name.startswith(PREFIX)]
        by_layer = self.paramwise_cfg['decay_type'] == 'layer_wise'
        layers, own = _depths(model.backbone, inside) if by_layer else _stages(inside)
        number = self.paramwise_cfg['num_layers'] or own
        if number < own:
            raise ValueError(
                f'num_layers={number} is too few for {type(model.backbone).__name__}, part of '
                f'which would learn faster than the head: set num_layers={own}'
            )
        if by_layer:
            # Upstream's last stage is always layer num_layers: layers which the backbone does not
            # have lie in front of it.
            layers = {name: i + (number - own if i >= own else 0) for name, i in layers.items()}
        return {name: layers.get(name, number + 1) for name in names}, number + 2


def _depths(backbone: nn.Module, names: list[str]) -> tuple[dict[str, int], int]:
    """The backbone's own layer of each parameter, and the last one."""
    try:
        depths = {name: backbone.get_layer_depth(name, PREFIX) for name in names}
    except (AttributeError, NotImplementedError):  # the latter of mmpretrain's ResNet-18, for one
        raise ValueError(
            f'{type(backbone).__name__} does not know its layers (get_layer_depth): use another '
            "backbone, or set decay_type='stage_wise'"
        ) from None
    return {name: depth for name, (depth, _) in depths.items()}, depths[names[0]][1] - 2


def _stages(names: list[str]) -> tuple[dict[str, int], int]:
    """1, 2, ... for the parameters of the stages, 0 for those registered in front of the last one.

    Those behind the stages (output norms, a last convolution) are left out.
    """
    found = {name: int(match[1]) for name in names if (match := STAGE.match(name))}
    if not found:
        raise ValueError(
            "decay_type='stage_wise' finds no stages (stages.N, layerN or layers.N) in this "
            "backbone: set decay_type='layer_wise'"
        )
    first, stages = min(found.values()), max(found.values())
    last = max(i for i, name in enumerate(names) if name in found)
    layers = {name: found[name] - first + 1 if name in found else 0 for name in names[: last + 1]}
    return layers, stages - first + 1
