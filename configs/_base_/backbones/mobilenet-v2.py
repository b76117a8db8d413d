"""MobileNetV2, plain and with ParC (arXiv 2203.03952, 2210.04020).

Parameters with 1000 classes: 3,504,872 plain, 3,532,136 ParC.
"""

channels = [24, 32, 96, 320]
out_indices = [1, 2, 4, 6]  # the last of strides 4, 8, 16 and 32
final_channels = 1280  # of the 1x1 behind them, which only a classifier uses
plain = dict(type='mmpretrain.MobileNetV2', widen_factor=1.0)
# 14, 14 and 7 taps: the resolutions of stages 4, 5 and 6 at 224 x 224.
parc = dict(type='mmparc.ParCMobileNetV2', parc_starts=(1, 2, 3, 2, 2, 2, 1), img_size=224)
