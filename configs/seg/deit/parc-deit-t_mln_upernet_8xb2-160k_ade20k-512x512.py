_base_ = './deit-t_mln_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        init_cfg=dict(checkpoint='work_dirs/cls/parc-deit-tiny_4xb256_in1k/epoch_300.pth'),
    )
)
