_base_ = './convnext-xt_upernet_8xb2-amp-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parc-convnext-xt_8xb128-100e_in1k/epoch_100.pth'),
    )
)
