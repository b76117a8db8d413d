"""ConvNeXt-XT, a ConvNeXt-T of half the width, plain and with ParC (arXiv 2203.03952, 2210.04020).

Parameters with 1000 classes: 7,438,360 plain, 7,412,824 ParC.
"""

channels = [48, 96, 192, 384]
out_indices = [0, 1, 2, 3]  # strides 4, 8, 16 and 32
plain = dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[3, 3, 9, 3], channels=channels))
# 14 and 7 taps: the resolutions of stages 3 and 4 at 224 x 224.
parc = dict(type='mmparc.ParCConvNeXt', arch='xtiny', parc_starts=(3, 3, 6, 2), img_size=224)
