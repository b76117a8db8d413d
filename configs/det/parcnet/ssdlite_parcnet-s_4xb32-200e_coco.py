_base_ = './ssdlite_mobilevit-s_4xb32-200e_coco.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parcnet-s_8xb128_in1k/epoch_300.pth'),
    )
)
