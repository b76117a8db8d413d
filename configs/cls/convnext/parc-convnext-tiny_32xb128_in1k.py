_base_ = './convnext-tiny_32xb128_in1k.py'

model = dict(backbone=_base_.parc)
