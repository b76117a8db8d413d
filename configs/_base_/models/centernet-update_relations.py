"""CenterNet (its update) with one convolution on one map of stride 4, a detector of relations.

What the class of a disc needs of the rest of the image has to come from the backbone. A config sets
that and the head's in_channels and feat_channels.
"""

model = dict(
    type='CenterNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=4,
    ),
    neck=None,
    bbox_head=dict(
        type='CenterNetUpdateHead',
        num_classes=6,
        stacked_convs=0,
        strides=[4],
        regress_ranges=((0, 1e8),),
        hm_min_radius=0,
        hm_min_overlap=0.8,
        loss_cls=dict(type='GaussianFocalLoss', pos_weight=1.0, neg_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        # Boxes begin 1 stride to each side of their centre, near the discs' size.
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.01,
            override=[
                dict(type='Normal', name='conv_cls', std=0.01, bias_prob=0.01),
                dict(type='Normal', name='conv_reg', std=0.01, bias=1.0),
            ],
        ),
    ),
    train_cfg=None,
    # So low that even an untrained model detects something, and AP is a number.
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.001,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100,
    ),
)
