"""UperNet with light heads, a segmentor for the toy images.

A config sets the backbone, with outputs of strides 4 to 32, and in_channels of both heads.
"""

_base_ = ['mmseg::_base_/models/upernet_convnext.py']

num_classes = 1 + 8  # with the background
model = dict(
    data_preprocessor=dict(size_divisor=32),
    decode_head=dict(channels=64, num_classes=num_classes),
    auxiliary_head=dict(channels=64, num_classes=num_classes),
)
