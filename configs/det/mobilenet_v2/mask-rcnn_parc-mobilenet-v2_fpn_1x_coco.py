_base_ = './mask-rcnn_mobilenet-v2_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parc-mobilenet-v2_8xb128-100e_in1k/epoch_100.pth'),
    )
)
