# MobileViT-S on the small data, to see it train on a CPU.
_base_ = ['../../_base_/toy/classifier.py', '../../_base_/backbones/mobilevit-s.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=_base_.channels[-1]),
)
