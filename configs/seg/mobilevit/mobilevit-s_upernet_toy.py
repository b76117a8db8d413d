# A segmentor on the small data, to see MobileViT-S train on a CPU.
_base_ = ['../../_base_/toy/segmentor.py', '../../_base_/backbones/mobilevit-s.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, out_indices=_base_.out_indices),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
