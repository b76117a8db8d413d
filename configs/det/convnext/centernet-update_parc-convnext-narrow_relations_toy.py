_base_ = './centernet-update_convnext-narrow_relations_toy.py'

model = dict(backbone=dict(**_base_.parc))
