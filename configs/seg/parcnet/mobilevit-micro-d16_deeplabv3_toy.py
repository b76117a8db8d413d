# A segmentor for two CPU cores on the toy data: DeepLabV3 with output stride 16.
_base_ = [
    '../../_base_/models/upernet_toy.py',
    '../../_base_/datasets/ade20k_toy.py',
    '../../_base_/schedules/seg_toy.py',
    '../../_base_/backbones/parcnet-micro.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.plain_stride_16, out_indices=(3, 4)),
    decode_head=dict(
        _delete_=True,
        type='ASPPHead',
        in_channels=_base_.channels[4],
        in_index=1,
        channels=64,
        dilations=(1, 2, 4),  # the maps are 8 x 10
        dropout_ratio=0.1,
        num_classes=len(_base_.toy_seg_classes),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(in_channels=_base_.channels[3], in_index=0),
)
# MobileViT's final 1x1 has no part in the loss; ParCNet freezes its own.
find_unused_parameters = True
