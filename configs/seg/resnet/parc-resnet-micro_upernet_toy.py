_base_ = './resnet-micro_upernet_toy.py'

model = dict(backbone=dict(**_base_.parc, img_size=(128, 160)))
