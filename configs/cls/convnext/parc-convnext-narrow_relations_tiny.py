_base_ = './convnext-narrow_relations_tiny.py'

model = dict(backbone=dict(**_base_.parc))
