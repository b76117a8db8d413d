# Cascade Mask R-CNN 3x with ConvNeXt's COCO recipe: multi-scale crops, AdamW, layer-wise decay.
_base_ = [
    'mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py',
    '../../_base_/backbones/convnext-xt.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.1,  # as in classification; ConvNeXt-T has 0.4 here
        gap_before_final_norm=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/convnext-xt_32xb128_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=_base_.channels),
)
# mmdet's own constructor would decay the position embeddings of the ParC twin.
optim_wrapper = dict(constructor='mmparc.LayerDecayOptimWrapperConstructor')
