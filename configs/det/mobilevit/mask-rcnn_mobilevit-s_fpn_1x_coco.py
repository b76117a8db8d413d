# Mask R-CNN 1x, 8 x 2 images, with AdamW as Swin is trained with.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../../_base_/backbones/mobilevit-s.py']

model = dict(
    # As the classifier saw them: BGR from 0 to 1.
    data_preprocessor=dict(mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=False),
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=_base_.out_indices,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/mobilevit-s_8xb128_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=_base_.channels),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
)
