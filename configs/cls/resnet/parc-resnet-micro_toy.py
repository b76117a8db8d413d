_base_ = './resnet-micro_toy.py'

model = dict(backbone=dict(**_base_.parc, img_size=96))
