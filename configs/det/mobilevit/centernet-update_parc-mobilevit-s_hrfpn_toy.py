_base_ = './centernet-update_mobilevit-s_hrfpn_toy.py'

model = dict(backbone={**_base_.parc, 'img_size': (128, 160)})
