_base_ = ['../../_base_/schedules/det_few-gpus.py', '../../_base_/backbones/mobilenet-v2.py']

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=_base_.out_indices,
        # Not mmdet's fixed statistics: ParC kernels resized to a larger map scale their response.
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/mobilenet-v2_8xb128-100e_in1k/epoch_100.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=_base_.channels),
)
# The final 1x1 comes behind the last output: it is loaded, but gets no gradient.
find_unused_parameters = True
