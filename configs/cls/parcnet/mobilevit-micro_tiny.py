# A classifier for two CPU cores on the small data.
_base_ = [
    'mmpretrain::_base_/models/mobilevit/mobilevit_s.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
    '../../_base_/backbones/parcnet-micro.py',
    '../../_base_/tiny/cls.py',
]

data_preprocessor = _base_.tiny_data_preprocessor
model = dict(
    backbone=dict(_delete_=True, **_base_.plain),
    head=dict(num_classes=len(_base_.tiny_classes), in_channels=_base_.last_channels, topk=(1,)),
)
train_dataloader = _base_.tiny_train_dataloader
val_dataloader = _base_.tiny_val_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.tiny_val_evaluator
test_evaluator = val_evaluator

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=max_epochs // 2, max_keep_ckpts=2)
)
