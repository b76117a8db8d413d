# Mask R-CNN 1x, 8 x 2 images, with AdamW as Swin is trained with.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../../_base_/backbones/deit-t.py']

widths = _base_.channels * 4
model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        **_base_.maps,
        out_indices=[2, 5, 8, 11],
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/deit-tiny_4xb256_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    neck=[
        # its maps are all of stride 16: of these, strides 4, 8, 16 and 32
        dict(
            type='mmseg.MultiLevelNeck',
            in_channels=widths,
            out_channels=widths[0],
            scales=[4, 2, 1, 0.5],
        ),
        {**_base_.model.neck, 'in_channels': widths},
    ],
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={'.pos_embed': dict(decay_mult=0.0), '.cls_token': dict(decay_mult=0.0)},
    ),
)
