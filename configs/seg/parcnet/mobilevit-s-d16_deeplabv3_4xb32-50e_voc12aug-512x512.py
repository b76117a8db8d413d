# DeepLabV3 with output stride 16 and ParC-Net's recipe: 50 epochs on VOC 2012. What the published
# row does not give is taken from the detector's: 4 x 32 images, AdamW 9e-4, warm-up and cosine. It
# also trains on COCO images with VOC's classes, for which mmseg has no data set; not so here.
_base_ = [
    'mmseg::deeplabv3/deeplabv3_r50-d8_4xb4-20k_voc12aug-512x512.py',
    '../../_base_/backbones/parcnet-s.py',
]

# Layer 5 without the final 1x1. ParC-Net-S has 8.8 M parameters so; without mmseg's auxiliary head
# (0.3 M), and with a 1x1 for its 3x3 behind the pyramid (2.6 M less), they are the published 5.8 M.
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
# MobileViT's final 1x1 has no part in the loss; ParCNet freezes its own.
find_unused_parameters = True
train_dataloader = dict(batch_size=32)

max_iters = 4134  # 50 epochs of 10,582 images (1,464 and 9,118), 128 at a time
train_cfg = dict(max_iters=max_iters, val_interval=827)  # ten epochs
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=9e-4, weight_decay=0.01),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'.pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', begin=500, end=max_iters, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=827))
auto_scale_lr = dict(enable=False, base_batch_size=128)
