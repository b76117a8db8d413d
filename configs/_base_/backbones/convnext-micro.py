"""ConvNeXt-Micro: small enough to train on a CPU in minutes; no published model."""

channels = [24, 48, 96, 192]
out_indices = [0, 1, 2, 3]  # strides 4, 8, 16 and 32
plain = dict(
    type='mmpretrain.ConvNeXt',
    arch=dict(depths=[1, 1, 2, 1], channels=channels),
    # For a few hundred steps from scratch: blocks that count from the first step on, and a
    # LayerNorm that does not make the noise of flat patches as loud as edges are.
    layer_scale_init_value=1.0,
    norm_cfg=dict(type='LN2d', eps=0.1),
)
parc = dict(type='mmparc.ParCConvNeXt', parc_starts=(1, 1, 1, 0))
