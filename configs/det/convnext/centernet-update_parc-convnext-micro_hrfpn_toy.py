_base_ = './centernet-update_convnext-micro_hrfpn_toy.py'

model = dict(backbone=dict(**_base_.parc, img_size=(128, 160)))
