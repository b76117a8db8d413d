# ParC-Net-H (20,403,940 parameters): no MobileViT is as large, so it has no twin.
_base_ = './mobilevit-s_8xb128_in1k.py'

model = dict(backbone={**_base_.parc, 'arch': 'h'}, head=dict(in_channels=960))
