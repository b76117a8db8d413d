# A segmentor on the toy data, to see Swin-T train on a CPU.
_base_ = [
    '../../_base_/models/upernet_toy.py',
    '../../_base_/datasets/ade20k_toy.py',
    '../../_base_/schedules/seg_toy.py',
    '../../_base_/backbones/swin-t.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, out_indices=[0, 1, 2, 3], pad_small_map=True),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
