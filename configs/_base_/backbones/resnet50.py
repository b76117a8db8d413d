"""ResNet50, plain and with dense ParC (arXiv 2203.03952, 2210.04020).

Parameters with 1000 classes: 25,557,032 plain, 23,737,640 ParC.
"""

channels = [256, 512, 1024, 2048]
out_indices = [0, 1, 2, 3]  # strides 4, 8, 16 and 32
plain = dict(type='mmpretrain.ResNet', depth=50)
# 14 and 7 taps: the resolutions of stages 3 and 4 at 224 x 224.
parc = dict(type='mmparc.ParCResNet', parc_starts=(3, 4, 3, 2), img_size=224)
