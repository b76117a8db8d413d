_base_ = './mobilevit-s_8xb128_in1k.py'

model = dict(backbone=_base_.parc)
