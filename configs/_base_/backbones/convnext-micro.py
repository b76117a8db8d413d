"""ConvNeXt-Micro: small enough to train on a CPU in minutes; no published model."""

channels = [24, 48, 96, 192]
plain = dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[2, 2, 6, 2], channels=channels))
parc = dict(type='mmparc.ParCConvNeXt', parc_starts=(2, 2, 4, 1))
