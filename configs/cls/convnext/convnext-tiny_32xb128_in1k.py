_base_ = [
    'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
    '../../_base_/backbones/convnext-t.py',
]

model = dict(backbone=_base_.plain)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
