_base_ = './resnet-narrow_fcn_relations_tiny.py'

model = dict(backbone=dict(**_base_.parc))
