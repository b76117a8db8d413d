_base_ = './mobilenet-v2-micro_upernet_toy.py'

model = dict(backbone=dict(**_base_.parc, img_size=(128, 160)))
