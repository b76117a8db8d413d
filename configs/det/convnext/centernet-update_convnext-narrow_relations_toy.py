# A detector for two CPU cores on relations.
_base_ = [
    '../../_base_/models/centernet-update_relations.py',
    '../../_base_/datasets/coco_relations.py',
    '../../_base_/schedules/relations.py',
    '../../_base_/schedules/det_relations.py',
    '../../_base_/backbones/convnext-narrow.py',
]

model = dict(
    backbone=dict(**_base_.plain, gap_before_final_norm=False),
    bbox_head=dict(in_channels=_base_.channels, feat_channels=_base_.channels),
)
# Each image has six answers, and each is one position of the heat map: 600 steps would be too easy.
max_iters = 240
train_cfg = dict(max_iters=max_iters, val_interval=40)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=max_iters - 50, begin=50, end=max_iters, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=40))
