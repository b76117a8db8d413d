"""DeiT-T (arXiv 2012.12877), plain and with ParC in place of attention (arXiv 2210.04020).

Parameters with 1000 classes: 5,717,416 plain, 3,967,528 ParC.
"""

channels = [192]
strides = [16]  # of all its maps
out_indices = [11]
frozen_stages = [1]  # the patch embedding and a block, where a pyramid has its first stage
maps = dict(out_type='featmap')  # what makes maps of the outputs, not one vector
plain = dict(type='mmpretrain.VisionTransformer', arch='deit-tiny')
# 14 taps: the patches along each axis at 224 x 224.
parc = dict(type='mmparc.ParCVisionTransformer', img_size=224)
