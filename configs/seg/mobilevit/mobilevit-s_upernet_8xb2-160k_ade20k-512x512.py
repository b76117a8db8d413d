# UperNet with Swin's ADE20K recipe: 160k iterations, 8 x 2 images, AdamW.
_base_ = [
    'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    '../../_base_/backbones/mobilevit-s.py',
]

model = dict(
    # As the classifier saw them: BGR from 0 to 1.
    data_preprocessor=dict(mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=False),
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=_base_.out_indices,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/mobilevit-s_8xb128_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
auto_scale_lr = dict(enable=False, base_batch_size=16)
