# MobileNetV2 with ConvNeXt's ImageNet recipe, but for stochastic depth, which its class lacks.
_base_ = [
    'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
    '../../_base_/backbones/mobilenet-v2.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.plain),
    neck=dict(type='GlobalAveragePooling'),
    # The reference's start; without it the whole model's init_cfg, ConvNeXt's, would give 0.02.
    head=dict(
        in_channels=_base_.final_channels,
        init_cfg=dict(_delete_=True, type='Normal', layer='Linear', std=0.01),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
# Averaged weights need averaged batch norm statistics, which ConvNeXt does not have.
custom_hooks = [dict(type='EMAHook', momentum=1e-4, update_buffers=True, priority='ABOVE_NORMAL')]
