# UperNet with ConvNeXt's ADE20K recipe: 160k iterations, 8 x 2 images, AdamW, stage-wise decay.
_base_ = [
    'mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
    '../../_base_/backbones/convnext-xt.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.1,  # as in classification; ConvNeXt-T has 0.4 here
        gap_before_final_norm=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/convnext-xt_32xb128_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
# mmseg's own constructor would decay the position embeddings of the ParC twin.
optim_wrapper = dict(constructor='mmparc.LayerDecayOptimWrapperConstructor')
auto_scale_lr = dict(enable=False, base_batch_size=16)
