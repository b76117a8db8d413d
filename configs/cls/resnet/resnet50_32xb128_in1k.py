# ResNet50 with ConvNeXt's ImageNet recipe: 300 epochs, AdamW 4e-3 at batch 4096, mixup, cutmix.
_base_ = [
    'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
    '../../_base_/backbones/resnet50.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, drop_path_rate=0.1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=_base_.channels[-1]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
# Averaged weights need averaged batch norm statistics, which ConvNeXt does not have.
custom_hooks = [dict(type='EMAHook', momentum=1e-4, update_buffers=True, priority='ABOVE_NORMAL')]
