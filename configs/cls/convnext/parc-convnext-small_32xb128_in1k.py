_base_ = './convnext-small_32xb128_in1k.py'

model = dict(backbone=_base_.parc)
