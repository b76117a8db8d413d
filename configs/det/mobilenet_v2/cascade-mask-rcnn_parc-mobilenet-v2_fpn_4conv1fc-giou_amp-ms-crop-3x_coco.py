_base_ = './cascade-mask-rcnn_mobilenet-v2_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parc-mobilenet-v2_32xb128_in1k/epoch_300.pth'),
    )
)
