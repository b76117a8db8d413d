# A segmentor for two CPU cores: DeepLabV3 with output stride 16 and a light head on the small data.
_base_ = [
    'mmseg::_base_/models/deeplabv3_r50-d8.py',
    'mmseg::_base_/schedules/schedule_20k.py',
    'mmseg::_base_/default_runtime.py',
    '../../_base_/backbones/parcnet-micro.py',
    '../../_base_/tiny/seg.py',
]

model = dict(
    data_preprocessor=dict(size_divisor=32),
    pretrained=None,
    backbone=dict(_delete_=True, **_base_.plain_stride_16, out_indices=(3, 4)),
    decode_head=dict(
        in_channels=_base_.channels[4],
        in_index=1,
        channels=64,
        dilations=(1, 2, 4),  # the maps are 8 x 10
        num_classes=len(_base_.tiny_seg_classes),
    ),
    auxiliary_head=dict(
        in_channels=_base_.channels[3],
        in_index=0,
        channels=64,
        num_classes=len(_base_.tiny_seg_classes),
    ),
)
# MobileViT's final 1x1 has no part in the loss; ParCNet freezes its own.
find_unused_parameters = True
train_dataloader = _base_.tiny_train_dataloader
val_dataloader = _base_.tiny_val_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.tiny_val_evaluator
test_evaluator = val_evaluator

max_iters = 400
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0, custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=1.0, begin=50, end=max_iters, eta_min=0.0, by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=max_iters // 2, max_keep_ckpts=2)
)
