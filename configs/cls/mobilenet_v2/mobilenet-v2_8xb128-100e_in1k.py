_base_ = ['../../_base_/schedules/cls_few-gpus.py', '../../_base_/backbones/mobilenet-v2.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain),
    neck=dict(type='GlobalAveragePooling'),
    # The reference's start; without it the whole model's init_cfg, ConvNeXt's, would give 0.02.
    head=dict(
        in_channels=_base_.final_channels,
        init_cfg=dict(_delete_=True, type='Normal', layer='Linear', std=0.01),
    ),
)
