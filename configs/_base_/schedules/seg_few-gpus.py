"""UperNet with ConvNeXt's ADE20K recipe in a quarter of its iterations, 8 GPUs with 2 images each.

The warm-up stays at 1500 iterations: AdamW's averages over 1000 steps need them, however many
follow. A leaf sets the backbone, which starts from its 100-epoch classifier, and the heads'
in_channels.
"""

_base_ = 'mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'

max_iters, warm_up, interval = 40000, 1500, 4000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=warm_up),
    dict(type='PolyLR', power=1.0, begin=warm_up, end=max_iters, eta_min=0.0, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=interval)
default_hooks = dict(checkpoint=dict(interval=interval))
# mmseg's own constructor takes ConvNeXt alone, and would decay position embeddings.
optim_wrapper = dict(constructor='mmparc.LayerDecayOptimWrapperConstructor')
auto_scale_lr = dict(enable=False, base_batch_size=16)
