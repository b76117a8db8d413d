_base_ = './mobilevit-s_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parc-mobilevit-s_8xb128_in1k/epoch_300.pth'),
    )
)
