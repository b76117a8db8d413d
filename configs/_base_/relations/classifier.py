"""A classifier of made relations, `tools/make_toy_data.py --scenes relations`, on two CPU cores.

A leaf sets the backbone and the head's in_channels. The pooling is nearly the maximum: behind an
average the one disc that is the answer moves the logits too little to be learned from.
"""

_base_ = ['mmpretrain::_base_/default_runtime.py']

from mmparc.datasets import RELATIONS as relations

data_preprocessor = dict(
    num_classes=len(relations),
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
model = dict(
    type='ImageClassifier',
    neck=dict(type='GeneralizedMeanPooling', p=8.0, eps=0.01),
    head=dict(
        type='LinearClsHead',
        num_classes=len(relations),
        loss=dict(type='CrossEntropyLoss'),
        topk=(1,),
    ),
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
log_processor = dict(by_epoch=False)
default_hooks = dict(
    visualization=dict(rescale_factor=4.0),  # of small images, so that the caption can be read
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100, max_keep_ckpts=2),
)
