_base_ = './mobilenet-v2_upernet_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parc-mobilenet-v2_32xb128_in1k/epoch_300.pth'),
    )
)
