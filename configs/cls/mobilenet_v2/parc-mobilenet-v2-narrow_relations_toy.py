_base_ = './mobilenet-v2-narrow_relations_toy.py'

model = dict(backbone=dict(**_base_.parc))
