# A detector for two CPU cores: CenterNet (its update) on one map of stride 8, trained on the small
# data from scratch in minutes.
_base_ = [
    'mmdet::centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py',
    '../../_base_/backbones/parcnet-micro.py',
    '../../_base_/tiny/det.py',
]

model = dict(
    data_preprocessor=dict(std=[57.375, 57.12, 58.395]),
    backbone=dict(_delete_=True, **_base_.plain_stride_32, out_indices=(2, 3, 4)),
    neck=dict(
        _delete_=True, type='HRFPN', in_channels=_base_.channels[2:], out_channels=64, num_outs=1
    ),
    bbox_head=dict(
        num_classes=len(_base_.tiny_classes),
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        strides=[8],
        regress_ranges=((0, 1e8),),
        norm_cfg=dict(type='BN'),
        loss_cls=dict(pos_weight=1.0, neg_weight=1.0),
        # Boxes begin 2 strides to each side of their centre, near the objects' middle size.
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.01,
            override=[
                dict(type='Normal', name='conv_cls', std=0.01, bias_prob=0.01),
                dict(type='Normal', name='conv_reg', std=0.01, bias=2.0),
            ],
        ),
    ),
    # So low that even an untrained model detects something, and AP is a number.
    test_cfg=dict(score_thr=0.001),
)
# MobileViT's final 1x1 has no part in the loss; ParCNet freezes its own.
find_unused_parameters = True
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
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=5, max_keep_ckpts=2))
