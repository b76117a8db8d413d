_base_ = ['../../_base_/schedules/seg_few-gpus.py', '../../_base_/backbones/mobilenet-v2.py']

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=_base_.out_indices,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/mobilenet-v2_8xb128-100e_in1k/epoch_100.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
# Seven stages need 7 layers, not ConvNeXt's 6; the stem then learns at 0.43 of the rate.
optim_wrapper = dict(paramwise_cfg=dict(num_layers=7))
# The final 1x1 comes behind the last output: it is loaded, but gets no gradient.
find_unused_parameters = True
