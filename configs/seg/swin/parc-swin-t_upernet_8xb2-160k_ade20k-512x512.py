_base_ = './swin-t_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parc-swin-tiny_16xb64_in1k/epoch_300.pth'),
    )
)
