_base_ = './convnext-micro_toy.py'

model = dict(backbone=dict(**_base_.parc, img_size=96))
