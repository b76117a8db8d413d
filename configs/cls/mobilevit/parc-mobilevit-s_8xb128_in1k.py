# Its twin is ParC-Net-S's: one run serves both. So `parc` is ParC-Net-S here, and what fragment
# mobilevit-s.py says stands here again.
_base_ = '../parcnet/mobilevit-s_8xb128_in1k.py'

model = dict(backbone=dict(type='mmparc.ParCMobileViT', img_size=256))
