"""CenterNet (its update) on one map of stride 8, for the small COCO-format data and two CPU cores.

A leaf sets the backbone, with outputs of strides 8, 16 and 32, and the neck's in_channels.
"""

_base_ = ['mmdet::centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py']

from mmparc.datasets import CLASSES as toy_classes

toy_root = 'data/toy/det/'

model = dict(
    data_preprocessor=dict(std=[57.375, 57.12, 58.395]),
    neck=dict(_delete_=True, type='HRFPN', out_channels=64, num_outs=1),
    bbox_head=dict(
        num_classes=len(toy_classes),
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
train_dataloader = dict(
    _delete_=True,
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=toy_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        metainfo=dict(classes=toy_classes),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = dict(
    _delete_=True,
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=toy_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        metainfo=dict(classes=toy_classes),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(160, 128), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='CocoMetric',
    ann_file=toy_root + 'annotations/instances_val2017.json',
    metric='bbox',
)
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
