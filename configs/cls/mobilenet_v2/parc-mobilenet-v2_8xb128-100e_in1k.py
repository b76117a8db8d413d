_base_ = './mobilenet-v2_8xb128-100e_in1k.py'

model = dict(backbone=_base_.parc)
