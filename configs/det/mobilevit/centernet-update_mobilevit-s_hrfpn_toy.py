# A detector on the toy data, to see MobileViT-S train on a CPU.
_base_ = [
    '../../_base_/models/centernet-update_toy.py',
    '../../_base_/datasets/coco_toy.py',
    '../../_base_/schedules/det_toy.py',
    '../../_base_/backbones/mobilevit-s.py',
]

model = dict(
    backbone=dict(**_base_.plain, out_indices=[2, 3, 4]),
    neck=dict(in_channels=_base_.channels[1:]),
)
