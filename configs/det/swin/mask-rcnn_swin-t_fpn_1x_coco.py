_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', '../../_base_/backbones/swin-t.py']

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.plain,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.2,
        pad_small_map=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/cls/swin-tiny_16xb64_in1k/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
