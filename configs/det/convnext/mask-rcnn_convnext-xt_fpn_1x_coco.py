_base_ = ['../../_base_/schedules/det_few-gpus.py', '../../_base_/backbones/convnext-xt.py']

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.1,
        gap_before_final_norm=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/convnext-xt_8xb128-100e_in1k/epoch_100.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=_base_.channels),
)
