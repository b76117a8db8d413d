"""ParC-Net-Micro and MobileViT-Micro: small enough to train on a CPU; no published models.

As in S, transformers have three quarters of the width of ParC blocks.
"""

channels = [16, 24, 32, 48, 64]
out_indices = [1, 2, 3, 4]  # strides 4, 8, 16 and 32
last_channels = 256
plain_layers_1_to_4 = [
    ['mobilenetv2', 16, 1, 1, 4],
    ['mobilenetv2', 24, 2, 3, 4],
    ['mobilevit', 32, 2, 36, 72, 1, 4],
    ['mobilevit', 48, 2, 48, 96, 2, 4],
]
plain_name = 'mobilevit-micro'
plain = dict(
    type='mmpretrain.MobileViT',
    arch=[*plain_layers_1_to_4, ['mobilevit', 64, 2, 60, 120, 1, 4]],
)
# With an empty layer behind layer 5, which makes layer 5 itself an output, see parcnet-s.py.
plain_stride_32 = dict(
    type='mmpretrain.MobileViT',
    arch=[
        *plain_layers_1_to_4,
        ['mobilevit', 64, 2, 60, 120, 1, 4],
        ['mobilenetv2', 64, 1, 0],
    ],
)
plain_stride_16 = dict(
    type='mmpretrain.MobileViT',
    arch=[
        *plain_layers_1_to_4,
        ['mobilevit', 64, 1, 60, 120, 1, 4],
        ['mobilenetv2', 64, 1, 0],
    ],
)
parc = dict(
    type='mmparc.ParCNet',
    arch=dict(
        _delete_=True,  # MobileViT's is a list
        stem_kernel=3,
        stem_channels=16,
        channels=channels,
        inner_channels=[48, 64, 80],
        depths=[1, 2, 1],
        ffn_channels=[96, 128, 160],
        fusion='concat',
    ),
)
