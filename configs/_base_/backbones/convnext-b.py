"""ConvNeXt-B, plain and with ParC where ParC-ConvNeXt-T has it; no published ParC model.

Parameters with 1000 classes: 88,591,464 plain, 88,458,856 ParC.
"""

channels = [128, 256, 512, 1024]
out_indices = [0, 1, 2, 3]  # strides 4, 8, 16 and 32
plain = dict(type='mmpretrain.ConvNeXt', arch='base')
# 14 and 7 taps: the resolutions of stages 3 and 4 at 224 x 224.
parc = dict(type='mmparc.ParCConvNeXt', arch='base', parc_starts=(3, 3, 18, 2), img_size=224)
