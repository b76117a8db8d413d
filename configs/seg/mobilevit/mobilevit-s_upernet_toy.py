# A segmentor on the toy data, to see MobileViT-S train on a CPU.
_base_ = [
    '../../_base_/models/upernet_toy.py',
    '../../_base_/datasets/ade20k_toy.py',
    '../../_base_/schedules/seg_toy.py',
    '../../_base_/backbones/mobilevit-s.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, out_indices=_base_.out_indices),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
