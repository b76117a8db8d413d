# DeepLabV3 with output stride 16 and mmseg's schedule on ADE20K: 80k iterations of 4 x 4 images,
# AdamW. None is published for ParC-Net.
_base_ = [
    'mmseg::deeplabv3/deeplabv3_r50-d8_4xb4-80k_ade20k-512x512.py',
    '../../_base_/backbones/parcnet-s.py',
]

model = dict(
    # As the classifier saw them: BGR from 0 to 1.
    data_preprocessor=dict(mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=False),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        **_base_.plain_stride_16,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/mobilevit-s_8xb128_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(
        in_channels=_base_.channels[4], in_index=1, channels=256, dilations=(1, 6, 12, 18)
    ),
    auxiliary_head=dict(in_channels=_base_.channels[3], in_index=0),
)
sync_bn = 'torch'  # 4 images are few for the backbone's statistics
# MobileViT's final 1x1 has no part in the loss; ParCNet freezes its own.
find_unused_parameters = True
optim_wrapper = dict(
    # The rate of the VOC config, in proportion to the batch.
    optimizer=dict(_delete_=True, type='AdamW', lr=9e-4 * 16 / 128, weight_decay=0.01),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'.pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', begin=500, end=80000, by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
