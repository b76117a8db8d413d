_base_ = ['../../_base_/few_gpus/classifier.py', '../../_base_/backbones/resnet50.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=_base_.channels[-1]),
)
