# SSDLite 320 with ParC-Net's recipe: 200 epochs of 4 x 32 images, AdamW 9e-4. What the published
# row does not give is chosen: weight decay 0.01, and mmdet's warm-up, extra levels and anchors.
# These lie where the maps of 320 pixels do: so no multi-scale batches here.
_base_ = [
    'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
    '../../_base_/backbones/parcnet-s.py',
]

# Layers 4 and 5, strides 16 and 32, without the final 1x1: 5.4 M parameters with ParC-Net-S, where
# 5.2 M are published; with the 1x1 it would be 5.9 M.
channels_of_levels = (*_base_.channels[3:], 512, 256, 256, 128)
model = dict(
    # As the classifier saw them: BGR from 0 to 1.
    data_preprocessor=dict(
        mean=[0, 0, 0],
        std=[255, 255, 255],
        bgr_to_rgb=False,
    ),
    backbone=dict(
        _delete_=True,
        **_base_.plain_stride_32,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/mobilevit-s_8xb128_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=channels_of_levels[:2], out_channels=channels_of_levels),
    bbox_head=dict(in_channels=channels_of_levels),
)
# MobileViT's final 1x1 has no part in the loss; ParCNet freezes its own.
find_unused_parameters = True
train_dataloader = dict(batch_size=32)

max_epochs = 40  # of 5 passes through the images each: 200
train_cfg = dict(max_epochs=max_epochs)
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
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True),
]
auto_scale_lr = dict(base_batch_size=128)
