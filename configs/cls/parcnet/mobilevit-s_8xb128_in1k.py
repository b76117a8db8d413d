# ParC-Net's ImageNet recipe: 300 epochs of 8 x 128 images, AdamW from 4e-4 to 4e-3 in 3000
# iterations and back by a cosine, EMA, batches of 160 to 320 pixels. Its dropout of 0.2 in front of
# the classifier is left out: mmpretrain's linear head has none.
_base_ = [
    'mmpretrain::mobilevit/mobilevit-small_8xb128_in1k.py',
    '../../_base_/backbones/parcnet-s.py',
]

# The sizes of MobileViT's multi-scale sampler.
sizes = [160, 192, 256, 288, 320]
data_preprocessor = dict(type='mmparc.MultiScaleClsDataPreprocessor', sizes=sizes)
model = dict(
    backbone=dict(_delete_=True, **_base_.plain),
    head=dict(
        in_channels=_base_.last_channels,
        loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=max(sizes)),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ]
    )
)

train_cfg = dict(max_epochs=300)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=4e-3, weight_decay=0.025),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'.pos_embed': dict(decay_mult=0.0)},
    ),
)
warm_up = 3000
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=warm_up),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=False, begin=warm_up),
]
# With the batch norms' statistics: those of the latest weights would not fit the averaged ones.
custom_hooks = [dict(type='EMAHook', momentum=5e-4, update_buffers=True, priority='ABOVE_NORMAL')]
auto_scale_lr = dict(base_batch_size=1024)
