# A classifier for two CPU cores on the small data.
_base_ = ['../../_base_/toy/classifier.py', '../../_base_/backbones/convnext-micro.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.plain), head=dict(in_channels=_base_.channels[-1])
)
