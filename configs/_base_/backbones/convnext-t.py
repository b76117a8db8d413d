"""ConvNeXt-T, plain and with ParC (arXiv 2203.03952, 2210.04020).

Parameters with 1000 classes: 28,589,128 plain, 28,538,056 ParC.
"""

channels = [96, 192, 384, 768]
out_indices = [0, 1, 2, 3]  # strides 4, 8, 16 and 32
plain = dict(type='mmpretrain.ConvNeXt', arch='tiny')
# 14 and 7 taps: the resolutions of stages 3 and 4 at 224 x 224.
parc = dict(type='mmparc.ParCConvNeXt', arch='tiny', parc_starts=(3, 3, 6, 2), img_size=224)
