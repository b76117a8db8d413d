# A segmentor for two CPU cores on relations.
_base_ = [
    '../../_base_/models/fcn_relations.py',
    '../../_base_/datasets/ade20k_relations.py',
    '../../_base_/schedules/relations.py',
    '../../_base_/schedules/seg_relations.py',
    '../../_base_/backbones/mobilenet-v2-narrow.py',
]

model = dict(
    backbone=dict(**_base_.plain),
    decode_head=dict(in_channels=_base_.channels, channels=_base_.channels),
)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
# The final 1x1 comes behind the last output: it is loaded, but gets no gradient.
find_unused_parameters = True
