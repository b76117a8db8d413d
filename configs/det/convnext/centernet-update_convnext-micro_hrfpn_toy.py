# A detector for two CPU cores, trained on the toy data from scratch in minutes.
_base_ = [
    '../../_base_/models/centernet-update_toy.py',
    '../../_base_/datasets/coco_toy.py',
    '../../_base_/schedules/det_toy.py',
    '../../_base_/backbones/convnext-micro.py',
]

model = dict(
    backbone=dict(**_base_.plain, out_indices=[1, 2, 3], gap_before_final_norm=False),
    neck=dict(in_channels=_base_.channels[1:]),
)
