# Its twin is ParC-Net-S's: one run serves both.
_base_ = '../parcnet/mobilevit-s_8xb128_in1k.py'

model = dict(backbone=dict(type='mmparc.ParCMobileViT', img_size=256))
