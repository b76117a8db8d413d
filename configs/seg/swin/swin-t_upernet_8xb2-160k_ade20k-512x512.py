_base_ = [
    'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    '../../_base_/backbones/swin-t.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.3,
        pad_small_map=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/swin-tiny_16xb64_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
auto_scale_lr = dict(enable=False, base_batch_size=16)
