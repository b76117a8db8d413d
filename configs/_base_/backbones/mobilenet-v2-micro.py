"""MobileNetV2 of half the width, to train on a CPU in minutes; no published model."""

channels = [16, 16, 48, 160]
out_indices = [1, 2, 4, 6]  # the last of strides 4, 8, 16 and 32
final_channels = 1280
plain = dict(type='mmpretrain.MobileNetV2', widen_factor=0.5)
parc = dict(type='mmparc.ParCMobileNetV2', parc_starts=(1, 2, 3, 2, 2, 2, 1))
