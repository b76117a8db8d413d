# A detector for two CPU cores, trained on the toy data from scratch in minutes.
_base_ = [
    '../../_base_/models/centernet-update_toy.py',
    '../../_base_/datasets/coco_toy.py',
    '../../_base_/schedules/det_toy.py',
    '../../_base_/backbones/mobilenet-v2-micro.py',
]

model = dict(
    backbone=dict(**_base_.plain, out_indices=[2, 4, 6]),
    neck=dict(in_channels=_base_.channels[1:]),
)
# The final 1x1 comes behind the last output: it is loaded, but gets no gradient.
find_unused_parameters = True
