_base_ = './mask-rcnn_mobilevit-s_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parc-mobilevit-s_8xb128_in1k/epoch_300.pth'),
    )
)
