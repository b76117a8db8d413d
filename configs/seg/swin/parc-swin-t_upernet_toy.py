_base_ = './swin-t_upernet_toy.py'

model = dict(backbone={**_base_.parc, 'img_size': (128, 160)})
