"""DeiT-S (arXiv 2012.12877), plain and with ParC in place of attention (arXiv 2210.04020).

Parameters with 1000 classes: 22,050,664 plain, 15,011,944 ParC.
"""

channels = [384]
strides = [16]  # of all its maps
out_indices = [11]
frozen_stages = [1]  # the patch embedding and a block, where a pyramid has its first stage
maps = dict(out_type='featmap')  # what makes maps of the outputs, not one vector
plain = dict(type='mmpretrain.VisionTransformer', arch='deit-small')
# 14 taps: the patches along each axis at 224 x 224.
parc = dict(type='mmparc.ParCVisionTransformer', img_size=224)
