"""Loaders of the small ImageNet-format data, under names of their own that a leaf assigns."""

_base_ = './classes.py'

tiny_data_preprocessor = dict(
    num_classes=len(_base_.tiny_classes),
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
tiny_dataset = dict(
    type='ImageNet', data_root='data/tiny/cls', metainfo=dict(classes=_base_.tiny_classes)
)
tiny_train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **tiny_dataset,
        split='train',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
tiny_val_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **tiny_dataset,
        split='val',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
tiny_val_evaluator = dict(type='Accuracy', topk=(1,))
