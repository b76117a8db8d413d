# A classifier for two CPU cores on made relations.
_base_ = [
    '../../_base_/relations/classifier.py',
    '../../_base_/relations/schedule.py',
    '../../_base_/relations/resnet-narrow.py',
]

model = dict(
    backbone=dict(**_base_.plain),
    head=dict(in_channels=_base_.channels),
)
optim_wrapper = dict(optimizer=dict(lr=1e-2))
