"""A classifier of the toy images.

A config sets the backbone, the head's in_channels, and a neck where the backbone does not pool.
"""

_base_ = ['mmpretrain::_base_/models/convnext/convnext-tiny.py']

model = dict(head=dict(num_classes=8, topk=(1,)), train_cfg=None)
