"""ResNet18 of an eighth of the width, with maps of 16 x 16 for images of 64 x 64; no published
model.
"""

channels = 64
plain = dict(
    type='mmpretrain.ResNet',
    depth=18,
    stem_channels=8,
    base_channels=8,
    strides=(1, 1, 1, 1),
    out_indices=[3],
    zero_init_residual=False,
)
parc = dict(type='mmparc.ParCResNet', parc_starts=(2, 2, 1, 1), img_size=64)
