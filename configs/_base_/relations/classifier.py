"""A classifier of made relations, `tools/make_tiny_data.py --scenes relations`, on two CPU cores.

A leaf sets the backbone and the head's in_channels.
"""

_base_ = ['../tiny/classifier.py']

from mmparc.datasets import RELATIONS as relations

relations_dataset = dict(data_root='data/relations/cls', metainfo=dict(classes=relations))
data_preprocessor = dict(num_classes=len(relations))
model = dict(
    neck=dict(type='GlobalAveragePooling'), head=dict(num_classes=len(relations), topk=(1,))
)
train_dataloader = dict(batch_size=16, dataset=relations_dataset)
val_dataloader = dict(batch_size=50, dataset=relations_dataset)
test_dataloader = val_dataloader

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=16)
