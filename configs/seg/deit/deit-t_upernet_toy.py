# A segmentor on the toy data, to see DeiT-T train on a CPU.
_base_ = [
    '../../_base_/models/upernet_toy.py',
    '../../_base_/datasets/ade20k_toy.py',
    '../../_base_/schedules/seg_toy.py',
    '../../_base_/backbones/deit-t.py',
]

widths = _base_.channels * 4
model = dict(
    backbone=dict(
        _delete_=True, **_base_.plain, **_base_.maps, img_size=(128, 160), out_indices=[2, 5, 8, 11]
    ),
    neck=dict(
        type='MultiLevelNeck',  # its maps are all of stride 16
        in_channels=widths,
        out_channels=widths[0],
        scales=[4, 2, 1, 0.5],
    ),
    decode_head=dict(in_channels=widths),
    auxiliary_head=dict(in_channels=widths[0]),
)
