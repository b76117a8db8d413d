_base_ = ['mmpretrain::deit/deit-tiny_4xb256_in1k.py', '../../_base_/backbones/deit-t.py']

model = dict(backbone=_base_.plain)
