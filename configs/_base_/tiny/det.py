"""Loaders of the small COCO-format data, under names of their own that a leaf assigns."""

_base_ = './classes.py'

tiny_root = 'data/tiny/det/'
tiny_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
tiny_val_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
tiny_train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=tiny_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        metainfo=dict(classes=_base_.tiny_classes),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=tiny_train_pipeline,
    ),
)
tiny_val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=tiny_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        metainfo=dict(classes=_base_.tiny_classes),
        test_mode=True,
        pipeline=tiny_val_pipeline,
    ),
)
tiny_val_evaluator = dict(
    type='CocoMetric',
    ann_file=tiny_root + 'annotations/instances_val2017.json',
    metric='bbox',
)
