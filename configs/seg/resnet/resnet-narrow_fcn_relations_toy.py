# A segmentor for two CPU cores on made relations.
_base_ = [
    '../../_base_/relations/segmentor.py',
    '../../_base_/relations/schedule.py',
    '../../_base_/relations/resnet-narrow.py',
]

model = dict(
    backbone=dict(**_base_.plain),
    decode_head=dict(in_channels=_base_.channels, channels=_base_.channels),
)
optim_wrapper = dict(optimizer=dict(lr=1e-2))
