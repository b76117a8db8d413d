# Swin-T on the toy data, to see it train on a CPU.
_base_ = [
    '../../_base_/models/classifier_toy.py',
    '../../_base_/datasets/imagenet_toy.py',
    '../../_base_/schedules/cls_toy.py',
    '../../_base_/backbones/swin-t.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, pad_small_map=True),  # below a window of 7
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=_base_.channels[-1]),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))  # 2e-3, for the micro models, is too high here
