_base_ = './convnext-base_32xb128_in1k.py'

model = dict(backbone=_base_.parc)
