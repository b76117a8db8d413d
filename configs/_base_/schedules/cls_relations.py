"""The runtime of mmpretrain, for the training on relations (relations.py)."""

_base_ = ['mmpretrain::_base_/default_runtime.py']

log_processor = dict(by_epoch=False)
default_hooks = dict(
    visualization=dict(rescale_factor=4.0),  # enlarges the small images, for the caption
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100, max_keep_ckpts=2),
)
