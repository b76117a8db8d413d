_base_ = ['../../_base_/schedules/cls_few-gpus.py', '../../_base_/backbones/convnext-xt.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain),
    head=dict(in_channels=_base_.channels[-1]),
)
