_base_ = './swin-tiny_16xb64_in1k.py'

model = dict(backbone=_base_.parc)
