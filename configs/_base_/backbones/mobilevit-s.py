"""MobileViT-S (arXiv 2110.02178), plain and with ParC in place of attention (arXiv 2210.04020).

Parameters with 1000 classes: 5,578,632 plain, 4,180,920 ParC. ParC-Net-S (parcnet-s.py) has its
outline, but blocks of its own.
"""

channels = [64, 96, 128, 640]  # the last with the final 1x1
out_indices = [1, 2, 3, 4]  # strides 4, 8, 16 and 32
plain = dict(type='mmpretrain.MobileViT', arch='small')
images = dict(mean=[0, 0, 0], std=[255, 255, 255], rgb=False)  # as the classifier sees them
# 32, 16 and 8 taps: the resolutions of layers 3, 4 and 5 at 256 x 256.
parc = dict(type='mmparc.ParCMobileViT', img_size=256)
