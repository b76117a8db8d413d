"""The training on relations, with mmdet's runtime."""

_base_ = ['./relations.py', 'mmdet::_base_/default_runtime.py']

log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100, max_keep_ckpts=2),
)
