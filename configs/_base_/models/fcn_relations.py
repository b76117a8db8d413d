"""One linear layer on one map, a segmentor of relations.

What a pixel needs of the rest of the image has to come from the backbone. A config sets that and
the head's in_channels and channels.
"""

num_classes = 1 + 6  # with the background
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(64, 64),  # that of the images
        test_cfg=dict(size_divisor=4),
    ),
    decode_head=dict(
        type='FCNHead',
        num_convs=0,
        concat_input=False,
        dropout_ratio=0,
        num_classes=num_classes,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
