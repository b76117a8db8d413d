_base_ = './mobilenet-v2-micro_tiny.py'

model = dict(backbone=dict(**_base_.parc, img_size=96))
