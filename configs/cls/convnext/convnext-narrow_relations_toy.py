# A classifier for two CPU cores on made relations.
_base_ = [
    '../../_base_/relations/classifier.py',
    '../../_base_/relations/schedule.py',
    '../../_base_/relations/convnext-narrow.py',
]

model = dict(
    backbone=dict(**_base_.plain, gap_before_final_norm=False),
    head=dict(in_channels=_base_.channels),
)
