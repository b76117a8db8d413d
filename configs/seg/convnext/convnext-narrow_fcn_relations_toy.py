# A segmentor for two CPU cores on relations.
_base_ = [
    '../../_base_/models/fcn_relations.py',
    '../../_base_/datasets/ade20k_relations.py',
    '../../_base_/schedules/relations.py',
    '../../_base_/schedules/seg_relations.py',
    '../../_base_/backbones/convnext-narrow.py',
]

model = dict(
    backbone=dict(**_base_.plain, gap_before_final_norm=False),
    decode_head=dict(in_channels=_base_.channels, channels=_base_.channels),
)
