# A segmentor for two CPU cores on the small data.
_base_ = ['../../_base_/toy/segmentor.py', '../../_base_/backbones/resnet-micro.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, out_indices=[0, 1, 2, 3]),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
