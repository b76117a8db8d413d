_base_ = './mask-rcnn_deit-t_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parc-deit-tiny_4xb256_in1k/epoch_300.pth'),
    )
)
