# UperNet with ConvNeXt's ADE20K recipe: 160k iterations, 8 x 2 images, AdamW, stage-wise decay.
# MobileNetV2 has no stochastic depth.
_base_ = [
    'mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
    '../../_base_/backbones/mobilenet-v2.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=[1, 2, 4, 6],
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/mobilenet-v2_32xb128_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
# mmseg's own constructor takes ConvNeXt alone. Seven stages need 7 layers, not its 6; the stem then
# learns at 0.43 of the rate, in ConvNeXt's recipe at 0.48.
optim_wrapper = dict(
    constructor='mmparc.LayerDecayOptimWrapperConstructor', paramwise_cfg=dict(num_layers=7)
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
# The final 1x1 comes behind the last output: it is loaded, but gets no gradient.
find_unused_parameters = True
