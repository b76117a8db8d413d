# A detector on the toy data, to see DeiT-T train on a CPU.
_base_ = [
    '../../_base_/models/centernet-update_toy.py',
    '../../_base_/datasets/coco_toy.py',
    '../../_base_/schedules/det_toy.py',
    '../../_base_/backbones/deit-t.py',
]

widths = _base_.channels * 3
model = dict(
    backbone=dict(**_base_.plain, **_base_.maps, img_size=(128, 160), out_indices=[5, 8, 11]),
    neck=[
        # its maps are all of stride 16: of these, strides 8, 16 and 32
        dict(
            type='mmseg.MultiLevelNeck',
            in_channels=widths,
            out_channels=widths[0],
            scales=[2, 1, 0.5],
        ),
        dict(type='HRFPN', in_channels=widths, out_channels=64, num_outs=1),
    ],
)
