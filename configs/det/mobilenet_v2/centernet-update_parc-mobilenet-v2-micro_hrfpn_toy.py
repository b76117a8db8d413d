_base_ = './centernet-update_mobilenet-v2-micro_hrfpn_toy.py'

model = dict(backbone=dict(**_base_.parc, img_size=(128, 160)))
