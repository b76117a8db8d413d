# ParC-Net-H (20,403,940 parameters): no MobileViT is as large, so it has no twin.
_base_ = './parcnet-s_8xb128_in1k.py'

model = dict(backbone=dict(arch='h'), head=dict(in_channels=960))
