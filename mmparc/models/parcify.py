"""``mmparc.ParCify``: :func:`mmparc.parcify` as a backbone of a config."""

from mmengine.registry import MODELS as ANY_MODELS
from torch import nn

from mmparc.registry import MODELS
from mmparc.surgery import parcify


@MODELS.register_module()
def ParCify(backbone: dict | nn.Module, **options) -> nn.Module:
    """Build a backbone and exchange convolutions or attention in it for ParC mixers.

    ``backbone=dict(type='mmparc.ParCify', backbone=dict(type='mmpretrain.ResNeXt', depth=50))`` is
    that ResNeXt with ParC mixers for the spatial convolutions of its deep stages. Rules of its
    ``init_cfg`` for Conv2d hold for the ParC kernels too that take a convolution's place.

    Args:
        backbone: the config of any backbone that takes (B, C, H, W), whose type may name its scope
            ('mmdet.ResNet'), or a module. Name pretrained weights in its own ``init_cfg``, and set
            mmseg's older ``model.pretrained`` to None.
        options: the arguments of :func:`mmparc.parcify`.
    """
    if not isinstance(backbone, nn.Module):
        backbone = ANY_MODELS.build(backbone)
    backbone = parcify(backbone, **options)
    if options.get('replace') == 'attention':
        return backbone
    for module in backbone.modules():
        rules = getattr(module, 'init_cfg', None)
        if isinstance(rules, dict):  # one stays one: backbones ask whether theirs is Pretrained
            module.init_cfg = _with_parc(rules)
        elif rules:
            module.init_cfg = [_with_parc(rule) for rule in rules]
    return backbone


def _with_parc(rule: dict) -> dict:
    """The rule; one for Conv2d, which names layers by their classes, holds for ParCConv too."""
    layers = rule.get('layer') or []
    layers = [layers] if isinstance(layers, str) else list(layers)
    if 'Conv2d' not in layers or 'ParCConv' in layers:
        return rule
    return {**rule, 'layer': [*layers, 'ParCConv']}
