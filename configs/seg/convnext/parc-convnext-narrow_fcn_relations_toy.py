_base_ = './convnext-narrow_fcn_relations_toy.py'

model = dict(backbone=dict(**_base_.parc))
