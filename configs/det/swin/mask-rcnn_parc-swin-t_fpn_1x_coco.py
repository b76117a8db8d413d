_base_ = './mask-rcnn_swin-t_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parc-swin-tiny_16xb64_in1k/epoch_300.pth'),
    )
)
