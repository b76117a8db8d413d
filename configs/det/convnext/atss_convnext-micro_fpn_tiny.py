# A detector for two CPU cores: ATSS with a light head on the small data, minutes from scratch.
_base_ = [
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    '../../_base_/backbones/convnext-micro.py',
    '../../_base_/tiny/det.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=[1, 2, 3],
        gap_before_final_norm=False,
        layer_scale_init_value=1.0,
    ),
    neck=dict(in_channels=_base_.channels[1:], out_channels=64, start_level=0, num_outs=3),
    bbox_head=dict(
        num_classes=len(_base_.tiny_classes),
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=3, strides=[8, 16, 32]),
    ),
    # So low that even an untrained model detects something, and AP is a number.
    test_cfg=dict(score_thr=0.001),
)
train_dataloader = dict(_delete_=True, **_base_.tiny_train_dataloader)
val_dataloader = dict(_delete_=True, **_base_.tiny_val_dataloader)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, **_base_.tiny_val_evaluator)
test_evaluator = val_evaluator

max_epochs = 10
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0, custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=max_epochs // 2, max_keep_ckpts=2)
)
