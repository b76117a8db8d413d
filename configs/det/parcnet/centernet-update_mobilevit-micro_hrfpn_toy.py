# A detector for two CPU cores, trained on the toy data from scratch in minutes.
_base_ = [
    '../../_base_/models/centernet-update_toy.py',
    '../../_base_/datasets/coco_toy.py',
    '../../_base_/schedules/det_toy.py',
    '../../_base_/backbones/parcnet-micro.py',
]

model = dict(
    backbone=dict(**_base_.plain_stride_32, out_indices=(2, 3, 4)),
    neck=dict(in_channels=_base_.channels[2:]),
)
# MobileViT's final 1x1 has no part in the loss; ParCNet freezes its own.
find_unused_parameters = True
