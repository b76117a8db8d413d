_base_ = './mobilevit-s-d16_deeplabv3_4xb4-80k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        **_base_.parc,
        output_stride=16,
        init_cfg=dict(checkpoint='work_dirs/cls/parcnet-s_8xb128_in1k/epoch_300.pth'),
    )
)
