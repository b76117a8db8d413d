# Cascade Mask R-CNN 3x with ConvNeXt's COCO recipe: multi-scale crops, AdamW, layer-wise decay.
_base_ = [
    'mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py',
    '../../_base_/backbones/resnet50.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.1,  # as in classification; ConvNeXt-T has 0.4 here
        # Not mmdet's fixed statistics: ParC kernels resized to a larger map scale their response.
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/resnet50_32xb128_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=_base_.channels),
)
# mmdet's own constructor takes ConvNeXt alone. Its 6 layers are ResNet50's as well.
optim_wrapper = dict(constructor='mmparc.LayerDecayOptimWrapperConstructor')
