# A detector for two CPU cores, trained on the small data from scratch in minutes.
_base_ = ['../../_base_/toy/detector.py', '../../_base_/backbones/convnext-micro.py']

model = dict(
    backbone=dict(
        _delete_=True, **_base_.plain, out_indices=[1, 2, 3], gap_before_final_norm=False
    ),
    neck=dict(in_channels=_base_.channels[1:]),
)
