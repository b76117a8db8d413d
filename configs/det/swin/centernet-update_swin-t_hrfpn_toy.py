# A detector on the toy data, to see Swin-T train on a CPU.
_base_ = [
    '../../_base_/models/centernet-update_toy.py',
    '../../_base_/datasets/coco_toy.py',
    '../../_base_/schedules/det_toy.py',
    '../../_base_/backbones/swin-t.py',
]

model = dict(
    backbone=dict(**_base_.plain, out_indices=[1, 2, 3], pad_small_map=True),
    neck=dict(in_channels=_base_.channels[1:]),
)
