# DeiT-T on the toy data, to see it train on a CPU.
_base_ = [
    '../../_base_/models/classifier_toy.py',
    '../../_base_/datasets/imagenet_toy.py',
    '../../_base_/schedules/cls_toy.py',
    '../../_base_/backbones/deit-t.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, img_size=96),
    head=dict(in_channels=_base_.channels[-1]),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))  # 2e-3, for the micro models, is too high here
