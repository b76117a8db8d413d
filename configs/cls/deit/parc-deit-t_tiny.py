_base_ = './deit-t_tiny.py'

model = dict(backbone={**_base_.parc, 'img_size': 96})
