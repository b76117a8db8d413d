_base_ = './resnet50_8xb128-100e_in1k.py'

model = dict(backbone=_base_.parc)
