# ParC-Net-XS (2,185,384 parameters). MobileViT-XS (2.3 M) is near it in size but has other widths,
# up to the classifier's, so no config here is its twin: it differs from ParC-Net-S in arch alone.
_base_ = './mobilevit-s_8xb128_in1k.py'

model = dict(backbone={**_base_.parc, 'arch': 'xs'})
