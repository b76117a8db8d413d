_base_ = ['../../_base_/schedules/cls_few-gpus.py', '../../_base_/backbones/resnet50.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=_base_.channels[-1]),
)
