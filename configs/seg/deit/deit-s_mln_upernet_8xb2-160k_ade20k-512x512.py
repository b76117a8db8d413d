_base_ = [
    'mmseg::vit/vit_deit-s16_mln_upernet_8xb2-160k_ade20k-512x512.py',
    '../../_base_/backbones/deit-s.py',
]

widths = _base_.channels * 4
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        **_base_.maps,
        out_indices=[2, 5, 8, 11],
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/deit-small_4xb256_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=widths, out_channels=widths[0]),
    decode_head=dict(in_channels=widths),
    auxiliary_head=dict(in_channels=widths[0]),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
