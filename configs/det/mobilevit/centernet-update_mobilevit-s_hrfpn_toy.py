# A detector on the small data, to see MobileViT-S train on a CPU.
_base_ = ['../../_base_/toy/detector.py', '../../_base_/backbones/mobilevit-s.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, out_indices=[2, 3, 4]),
    neck=dict(in_channels=_base_.channels[1:]),
)
