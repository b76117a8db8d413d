"""A detector of made relations, `tools/make_toy_data.py --scenes relations`, on two CPU cores.

CenterNet (its update) with one convolution on the only map, of stride 4, so that what a disc's
class needs of the rest of the image comes from the backbone. A leaf sets that and the head's
in_channels and feat_channels.
"""

_base_ = ['mmdet::_base_/default_runtime.py']

from mmparc.datasets import RELATIONS as relations

relations_root = 'data/relations/det/'
model = dict(
    type='CenterNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=4,
    ),
    neck=None,
    bbox_head=dict(
        type='CenterNetUpdateHead',
        num_classes=len(relations),
        stacked_convs=0,
        strides=[4],
        regress_ranges=((0, 1e8),),
        hm_min_radius=0,
        hm_min_overlap=0.8,
        loss_cls=dict(type='GaussianFocalLoss', pos_weight=1.0, neg_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        # Boxes begin 1 stride to each side of their centre, near the discs' size.
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.01,
            override=[
                dict(type='Normal', name='conv_cls', std=0.01, bias_prob=0.01),
                dict(type='Normal', name='conv_reg', std=0.01, bias=1.0),
            ],
        ),
    ),
    train_cfg=None,
    # So low that even an untrained model detects something, and AP is a number.
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.001,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100,
    ),
)
relations_dataset = dict(
    type='CocoDataset', data_root=relations_root, metainfo=dict(classes=relations)
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **relations_dataset,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
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
    batch_size=50,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **relations_dataset,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            # these images' own size: it gives the scale that detections are returned in
            dict(type='Resize', scale=(64, 64), keep_ratio=True),
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
    type='CocoMetric',
    ann_file=relations_root + 'annotations/instances_val2017.json',
    metric='bbox',
)
test_evaluator = val_evaluator
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100, max_keep_ckpts=2),
)
