"""ConvNeXt of one narrow stage, with maps of 16 x 16 for images of 64 x 64; no published model."""

channels = 32
plain = dict(
    type='mmpretrain.ConvNeXt',
    arch=dict(depths=[5], channels=[channels]),
    out_indices=[0],
    # As backbones/convnext-micro.py; and weights that suit the width: at 0.02, blocks of 32
    # channels say next to nothing in the first hundreds of steps.
    layer_scale_init_value=1.0,
    norm_cfg=dict(type='LN2d', eps=0.1),
    init_cfg=dict(
        type='Kaiming',
        layer=['Conv2d', 'Linear', 'ParCConv'],
        mode='fan_in',  # of a depthwise kernel: its own length
        nonlinearity='linear',
    ),
)
parc = dict(type='mmparc.ParCConvNeXt', parc_starts=(3,), img_size=64)
