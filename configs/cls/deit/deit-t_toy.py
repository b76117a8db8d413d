# DeiT-T on the small data, to see it train on a CPU.
_base_ = ['../../_base_/toy/classifier.py', '../../_base_/backbones/deit-t.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain, img_size=96),
    head=dict(in_channels=_base_.channels[-1]),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))  # 2e-3, for the micro models, is too high here
