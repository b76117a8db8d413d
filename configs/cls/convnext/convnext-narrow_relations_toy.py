# A classifier for two CPU cores on relations.
_base_ = [
    '../../_base_/models/classifier_relations.py',
    '../../_base_/datasets/imagenet_relations.py',
    '../../_base_/schedules/relations.py',
    '../../_base_/schedules/cls_relations.py',
    '../../_base_/backbones/convnext-narrow.py',
]

model = dict(
    backbone=dict(**_base_.plain, gap_before_final_norm=False),
    head=dict(in_channels=_base_.channels),
)
