# A segmentor for two CPU cores on the toy data.
_base_ = [
    '../../_base_/models/upernet_toy.py',
    '../../_base_/datasets/ade20k_toy.py',
    '../../_base_/schedules/seg_toy.py',
    '../../_base_/backbones/mobilenet-v2-micro.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, out_indices=[1, 2, 4, 6]),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
# The final 1x1 comes behind the last output: it is loaded, but gets no gradient.
find_unused_parameters = True
