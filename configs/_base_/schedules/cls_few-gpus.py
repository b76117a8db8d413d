"""ConvNeXt's ImageNet recipe for 100 epochs on one machine of 8 GPUs.

100 epochs leave these networks short of training rather than overfitted, so the regularisation is
that of recipe A3 of "ResNet strikes back" (arXiv 2110.00476), also 100 epochs: RandAugment of
magnitude 6 instead of 9, mixup of 0.1 instead of 0.8, neither random erasing nor stochastic depth.
From its other settings (160 pixels, binary cross entropy, LAMB) nothing is taken: the kernels'
lengths follow from 224 pixels, and the rest stays ConvNeXt's, tests at 224 of 256 pixels included.

A leaf sets the backbone, the head's in_channels, and a neck where the backbone does not pool.
"""

_base_ = 'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py'

model = dict(
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=1.0)])
)
train_pipeline = [
    dict(step, magnitude_level=6) if step['type'] == 'RandAugment' else step
    for step in _base_.train_pipeline
    if step['type'] != 'RandomErasing'
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))  # 128 images a GPU

# The rate follows the batch, from ConvNeXt's 4e-3 at 4096: 4e-3 x (8 x 128) / 4096 = 1e-3.
base_batch_size = 8 * 128
optim_wrapper = dict(
    optimizer=dict(lr=4e-3 * base_batch_size / 4096),
    paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
)
auto_scale_lr = dict(base_batch_size=base_batch_size)
train_cfg = dict(max_epochs=100)
# 5 epochs of 1,281,167 images at 1024 are as many steps, 6,256, as ConvNeXt's 20 at 4096.
warm_up = 5
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-3, by_epoch=True, end=warm_up, convert_to_iter_based=True
    ),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=warm_up),
]
# Averaged weights need averaged batch norm statistics, where there are any.
custom_hooks = [dict(type='EMAHook', momentum=1e-4, update_buffers=True, priority='ABOVE_NORMAL')]
