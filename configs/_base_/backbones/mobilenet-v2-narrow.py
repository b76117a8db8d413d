"""MobileNetV2 of a quarter of the width, with maps of 16 x 16 for images of 64 x 64; no published
model.

mmpretrain's has no strides to choose, so that the plain one too is ours, with all 3x3 kept.
"""

channels = 80
plain = dict(
    type='mmparc.ParCMobileNetV2',
    widen_factor=0.25,
    strides=(2, 1, 1, 1, 1, 1, 1),
    parc_starts=(1, 2, 3, 4, 3, 3, 1),
    out_indices=[6],  # 1280 channels behind it would be most of the work
)
parc = dict(parc_starts=(1, 2, 3, 2, 2, 2, 1), img_size=64)
