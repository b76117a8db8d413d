_base_ = './resnet50_32xb128_in1k.py'

model = dict(backbone=_base_.parc)
