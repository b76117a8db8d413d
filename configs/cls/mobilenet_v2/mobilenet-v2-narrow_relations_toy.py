# A classifier for two CPU cores on made relations.
_base_ = [
    '../../_base_/relations/classifier.py',
    '../../_base_/relations/schedule.py',
    '../../_base_/relations/mobilenet-v2-narrow.py',
]

model = dict(
    backbone=dict(**_base_.plain),
    head=dict(in_channels=_base_.channels),
)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
# The final 1x1 comes behind the last output: it is loaded, but gets no gradient.
find_unused_parameters = True
