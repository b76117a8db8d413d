"""Swin-T (arXiv 2103.14030), plain and with ParC in place of attention (arXiv 2210.04020).

Parameters with 1000 classes: 28,288,354 plain, 19,754,632 ParC.
"""

channels = [96, 192, 384, 768]
out_indices = [0, 1, 2, 3]  # strides 4, 8, 16 and 32
frozen_stages = [0, 1, 2, 3]  # for the patch embedding and the stages up to each output
plain = dict(type='mmpretrain.SwinTransformer', arch='tiny')
# 56, 28, 14 and 7 taps: the resolutions of the four stages at 224 x 224.
parc = dict(type='mmparc.ParCSwinTransformer', img_size=224)
