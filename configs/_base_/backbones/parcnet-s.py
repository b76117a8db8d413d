"""ParC-Net-S (arXiv 2203.03952) and its counterpart MobileViT-S (arXiv 2110.02178).

Both: a stem, five layers of the same strides and output widths, and a final 1x1. Parameters with
1000 classes: 5,037,088 ParC, 5,578,632 plain.
"""

channels = [32, 64, 96, 128, 160]
out_indices = [1, 2, 3, 4]  # strides 4, 8, 16 and 32
last_channels = 640
plain_name = 'mobilevit-s'
plain = dict(type='mmpretrain.MobileViT', arch='small')
images = dict(mean=[0, 0, 0], std=[255, 255, 255], rgb=False)  # as the classifier sees them
# 32, 16 and 8 taps: the resolutions of layers 3, 4 and 5 at 256 x 256.
parc = dict(type='mmparc.ParCNet', arch='s', img_size=256)

# For detection and segmentation, which take layers 4 and 5 without the final 1x1. MobileViT runs
# its 1x1 before its last output, so it has an empty layer behind layer 5 here: layer 5 is output 4
# as in ParCNet, and the names in the state dict stay. Otherwise this is its 'small'.
plain_layers_1_to_4 = [
    ['mobilenetv2', 32, 1, 1, 4],
    ['mobilenetv2', 64, 2, 3, 4],
    ['mobilevit', 96, 2, 144, 288, 2, 4],
    ['mobilevit', 128, 2, 192, 384, 4, 4],
]
plain_stride_32 = dict(
    type='mmpretrain.MobileViT',
    arch=[
        *plain_layers_1_to_4,
        ['mobilevit', 160, 2, 240, 480, 3, 4],
        ['mobilenetv2', 160, 1, 0],
    ],
    out_indices=(3, 4),
)
plain_stride_16 = dict(
    type='mmpretrain.MobileViT',
    arch=[
        *plain_layers_1_to_4,
        ['mobilevit', 160, 1, 240, 480, 3, 4],
        ['mobilenetv2', 160, 1, 0],
    ],
    out_indices=(3, 4),
)
