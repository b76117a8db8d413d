# ConvNeXt's ImageNet recipe: 300 epochs, AdamW 4e-3 at batch 4096, EMA, mixup, cutmix, RandAugment.
_base_ = [
    'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
    '../../_base_/backbones/convnext-xt.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, drop_path_rate=0.1),
    head=dict(in_channels=_base_.channels[-1]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
