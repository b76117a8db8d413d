# MobileViT-S on the toy data, to see it train on a CPU.
_base_ = [
    '../../_base_/models/classifier_toy.py',
    '../../_base_/datasets/imagenet_toy.py',
    '../../_base_/schedules/cls_toy.py',
    '../../_base_/backbones/mobilevit-s.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.plain),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=_base_.channels[-1]),
)
