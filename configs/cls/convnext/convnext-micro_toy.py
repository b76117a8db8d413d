# A classifier for two CPU cores on the toy data.
_base_ = [
    '../../_base_/models/classifier_toy.py',
    '../../_base_/datasets/imagenet_toy.py',
    '../../_base_/schedules/cls_toy.py',
    '../../_base_/backbones/convnext-micro.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.plain), head=dict(in_channels=_base_.channels[-1])
)
