"""ConvNeXt-S, plain and with ParC where ParC-ConvNeXt-T has it; no published ParC model.

Parameters with 1000 classes: 50,223,688 plain, 50,124,232 ParC.
"""

channels = [96, 192, 384, 768]
out_indices = [0, 1, 2, 3]  # strides 4, 8, 16 and 32
plain = dict(type='mmpretrain.ConvNeXt', arch='small')
# 14 and 7 taps: the resolutions of stages 3 and 4 at 224 x 224.
parc = dict(type='mmparc.ParCConvNeXt', arch='small', parc_starts=(3, 3, 18, 2), img_size=224)
