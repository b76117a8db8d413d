_base_ = './mobilevit-s_upernet_toy.py'

model = dict(backbone={**_base_.parc, 'img_size': (128, 160)})
