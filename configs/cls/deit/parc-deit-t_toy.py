_base_ = './deit-t_toy.py'

model = dict(backbone={**_base_.parc, 'img_size': 96})
