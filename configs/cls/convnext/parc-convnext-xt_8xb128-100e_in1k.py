_base_ = './convnext-xt_8xb128-100e_in1k.py'

model = dict(backbone=_base_.parc)
