"""Mask R-CNN 1x on 8 GPUs with 2 images each, with AdamW as ConvNeXt is trained with.

A leaf sets the backbone, which starts from its 100-epoch classifier, and the neck's in_channels.
"""

_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0, custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
)
