_base_ = './mobilenet-v2_32xb128_in1k.py'

model = dict(backbone=_base_.parc)
