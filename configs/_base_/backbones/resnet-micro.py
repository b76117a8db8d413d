"""ResNet50 of an eighth of the width, to train on a CPU in minutes; no published model.

At the toy data's sizes it takes as many multiply-adds as ConvNeXt-Micro.
"""

channels = [32, 64, 128, 256]
out_indices = [0, 1, 2, 3]  # strides 4, 8, 16 and 32
plain = dict(type='mmpretrain.ResNet', depth=50, stem_channels=16, base_channels=8)
parc = dict(type='mmparc.ParCResNet', parc_starts=(3, 4, 3, 2))
