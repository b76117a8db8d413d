# A classifier for two CPU cores on made relations.
_base_ = [
    '../../_base_/relations/classifier.py',
    '../../_base_/relations/schedule.py',
    '../../_base_/backbones/mobilenet-v2-narrow.py',
]

model = dict(
    backbone=dict(**_base_.plain),
    head=dict(in_channels=1280),
)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
