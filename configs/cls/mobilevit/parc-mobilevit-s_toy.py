_base_ = './mobilevit-s_toy.py'

model = dict(backbone={**_base_.parc, 'img_size': 96})
