"""The toy images, in ImageNet's format: `tools/make_toy_data.py --tasks cls`."""

_base_ = []  # without it, the import would make this a lazy config of mmengine's

from mmparc.datasets import CLASSES as toy_classes

data_preprocessor = dict(
    num_classes=len(toy_classes),
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
toy_dataset = dict(type='ImageNet', data_root='data/toy/cls', metainfo=dict(classes=toy_classes))
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **toy_dataset,
        split='train',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **toy_dataset,
        split='val',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
