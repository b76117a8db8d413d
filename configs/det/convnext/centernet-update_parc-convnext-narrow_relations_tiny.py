_base_ = './centernet-update_convnext-narrow_relations_tiny.py'

model = dict(backbone=dict(**_base_.parc))
