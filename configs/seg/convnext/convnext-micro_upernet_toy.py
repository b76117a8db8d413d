# A segmentor for two CPU cores on the toy data.
_base_ = [
    '../../_base_/models/upernet_toy.py',
    '../../_base_/datasets/ade20k_toy.py',
    '../../_base_/schedules/seg_toy.py',
    '../../_base_/backbones/convnext-micro.py',
]

model = dict(
    backbone=dict(
        _delete_=True, **_base_.plain, out_indices=[0, 1, 2, 3], gap_before_final_norm=False
    ),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
