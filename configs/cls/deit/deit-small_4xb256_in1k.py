_base_ = ['mmpretrain::deit/deit-small_4xb256_in1k.py', '../../_base_/backbones/deit-s.py']

model = dict(backbone=_base_.plain)
