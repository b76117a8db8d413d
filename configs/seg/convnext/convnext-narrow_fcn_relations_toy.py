# A segmentor for two CPU cores on made relations.
_base_ = [
    '../../_base_/relations/segmentor.py',
    '../../_base_/relations/schedule.py',
    '../../_base_/relations/convnext-narrow.py',
]

model = dict(
    backbone=dict(**_base_.plain, gap_before_final_norm=False),
    decode_head=dict(in_channels=_base_.channels, channels=_base_.channels),
)
