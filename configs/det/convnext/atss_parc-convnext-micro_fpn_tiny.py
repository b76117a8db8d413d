_base_ = './atss_convnext-micro_fpn_tiny.py'

model = dict(backbone=dict(**_base_.parc, img_size=(128, 160)))
