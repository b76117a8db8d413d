_base_ = './deit-small_4xb256_in1k.py'

model = dict(backbone=_base_.parc)
