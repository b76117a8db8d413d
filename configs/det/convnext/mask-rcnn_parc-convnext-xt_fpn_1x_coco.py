_base_ = './mask-rcnn_convnext-xt_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parc-convnext-xt_8xb128-100e_in1k/epoch_100.pth'),
    )
)
