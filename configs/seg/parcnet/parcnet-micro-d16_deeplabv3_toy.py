_base_ = './mobilevit-micro-d16_deeplabv3_toy.py'

model = dict(backbone=dict(**_base_.parc, img_size=(128, 160), output_stride=16))
