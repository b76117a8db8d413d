_base_ = ['../../_base_/schedules/seg_few-gpus.py', '../../_base_/backbones/resnet50.py']

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.1,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/resnet50_8xb128-100e_in1k/epoch_100.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
