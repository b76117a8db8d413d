# A classifier for two CPU cores on the small data.
_base_ = ['../../_base_/toy/classifier.py', '../../_base_/backbones/parcnet-micro.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=_base_.last_channels),
)
