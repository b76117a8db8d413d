# A detector on the small data, to see Swin-T train on a CPU.
_base_ = ['../../_base_/toy/detector.py', '../../_base_/backbones/swin-t.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, out_indices=[1, 2, 3], pad_small_map=True),
    neck=dict(in_channels=_base_.channels[1:]),
)
