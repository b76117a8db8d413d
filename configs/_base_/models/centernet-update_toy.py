"""CenterNet (its update) on one map of stride 8, a detector for the toy images.

A config sets the backbone, with outputs of strides 8, 16 and 32, and the neck's in_channels.
"""

model = dict(
    type='CenterNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[103.53, 116.28, 123.675],
        std=[57.375, 57.12, 58.395],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
    neck=dict(type='HRFPN', out_channels=64, num_outs=1),
    bbox_head=dict(
        type='CenterNetUpdateHead',
        num_classes=8,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        strides=[8],
        regress_ranges=((0, 1e8),),
        norm_cfg=dict(type='BN'),
        hm_min_radius=4,
        hm_min_overlap=0.8,
        more_pos_thresh=0.2,
        more_pos_topk=9,
        soft_weight_on_reg=False,
        loss_cls=dict(type='GaussianFocalLoss', pos_weight=1.0, neg_weight=1.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        # At first a box ends 2 strides from its centre: about the objects' mean size.
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.01,
            override=[
                dict(type='Normal', name='conv_cls', std=0.01, bias_prob=0.01),
                dict(type='Normal', name='conv_reg', std=0.01, bias=2.0),
            ],
        ),
    ),
    train_cfg=None,
    # Low, so that even an untrained model detects something and AP is a number.
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.001,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100,
    ),
)
