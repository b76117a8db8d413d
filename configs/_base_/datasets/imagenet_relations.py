"""Discs and their relations, in ImageNet's format: `tools/make_toy_data.py --scenes relations`."""

_base_ = []  # without it, the import would make this a lazy config of mmengine's

from mmparc.datasets import RELATIONS as relations

data_preprocessor = dict(
    num_classes=len(relations),
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
relations_dataset = dict(
    type='ImageNet', data_root='data/relations/cls', metainfo=dict(classes=relations)
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **relations_dataset,
        split='train',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
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
        split='val',
        pipeline=[
            dict(type='LoadImageFromFile'),
            # the whole of these images, at their own size
            dict(type='ResizeEdge', scale=64),
            dict(type='CenterCrop', crop_size=64),
            dict(type='PackInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
