# Cascade Mask R-CNN 3x with ConvNeXt's COCO recipe: multi-scale crops, AdamW, stage-wise decay.
# MobileNetV2 has no stochastic depth.
_base_ = [
    'mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py',
    '../../_base_/backbones/mobilenet-v2.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=[1, 2, 4, 6],
        # Not mmdet's fixed statistics: ParC kernels resized to a larger map scale their response.
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/mobilenet-v2_32xb128_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=_base_.channels),
)
# mmdet's own constructor takes ConvNeXt alone. mmpretrain's MobileNetV2 knows no layers but its
# seven stages; the stem then learns at 0.06 of the rate, in ConvNeXt's recipe at 0.08.
optim_wrapper = dict(
    constructor='mmparc.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_type='stage_wise', num_layers=7),
)
# The final 1x1 comes behind the last output: it is loaded, but gets no gradient.
find_unused_parameters = True
