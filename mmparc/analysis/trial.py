"""A few training steps of any config's model on generated batches, to see that all of it learns."""

import numpy as np
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from mmparc.engine.config import datasets_of, drop_pretrained, image_settings, set_amp
from mmparc.models import ParCConv

BATCH = 2
CLASSES = 2  # of the generated labels: no model has fewer
# The first step may leave a block's last norm at zero, where it began (zero_init_residual).
STEPS = 3
PANOPTIC = 'LoadPanopticAnnotations'


def take_steps(cfg: Config, size: tuple[int, int]) -> set[str]:
    """Train a config's model on noise with random labels, by its own optimizer.

    It takes one step, and up to ``STEPS`` until each ParC parameter has had a gradient. Its
    checkpoints are left out; the learning rate is the base one, whatever its schedule.

    Args:
        cfg: a config of mmpretrain, mmdet or mmseg; it is changed.
        size: (H, W) of the images.

    Returns:
        The names of the ParC parameters that never got a non-zero gradient.

    Raises:
        ValueError: if the config is for tests alone, or a loss is no number.
    """
    if 'optim_wrapper' not in cfg:
        raise ValueError('the config has no optim_wrapper: it is for tests alone')
    prepare(cfg, size)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        model.init_weights()
        model.train()
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
        learning = {
            f'{layer}.{name}': parameter
            for layer, module in model.named_modules()
            if isinstance(module, ParCConv)
            for name, parameter in module.named_parameters()
            if parameter.requires_grad  # a teacher's do not
        }
        still = set(learning)
        for name, parameter in learning.items():
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name: still.discard(name) if p.grad.any() else None
            )
        hub = MessageHub.get_current_instance()  # where a Runner tells its models how far it is
        hub.update_info_dict(dict(max_iters=STEPS, max_epochs=1, epoch=0))
        for step in range(STEPS):
            hub.update_info('iter', step)
            losses = model.train_step(random_batch(cfg, size, seed=step), optimizer)
            if not all(torch.isfinite(loss).all() for loss in losses.values()):
                raise ValueError(f'not all losses of step {step + 1} are numbers')
            if not still:
                break
    return still


def prepare(cfg: Config, size: tuple[int, int]) -> None:
    """Make a config build a model without checkpoints, in float32, for images of a size (H, W)."""
    drop_pretrained(cfg)
    set_amp(cfg, False)
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    preprocessor = image_settings(cfg)
    for pads in (preprocessor, *(preprocessor.get('batch_augments') or [])):
        if pads.get('size'):  # what images are padded to
            pads.size = size


def random_batch(cfg: Config, size: tuple[int, int], seed: int) -> dict:
    """What a data loader of the config's task hands to ``train_step``: noise of a size (H, W)."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    datasets = datasets_of(cfg.get('train_dataloader'))
    steps = [step for dataset in datasets for step in dataset.get('pipeline') or []]
    if cfg.default_scope == 'mmdet':
        # LoadPanopticAnnotations loads masks and a map of classes unless told otherwise
        loading = [s for s in steps if s['type'] in ('LoadAnnotations', PANOPTIC)]
        masks, seg = (
            any(s.get(key, s['type'] == PANOPTIC) for s in loading)
            for key in ('with_mask', 'with_seg')
        )
        return demo_mm_inputs(
            BATCH,
            (3, *size),
            num_items=[3] * BATCH,
            num_classes=CLASSES,
            use_box_type=True,
            with_mask=masks,
            with_semantic=seg,
        )
    channels = len(image_settings(cfg).get('mean') or 'RGB')
    images = [torch.randint(256, (channels, *size), dtype=torch.uint8) for _ in range(BATCH)]
    if cfg.default_scope == 'mmseg':
        samples = []
        for _ in images:
            labels = torch.randint(CLASSES, (1, *size))
            meta = dict(img_shape=size, ori_shape=size, pad_shape=size)
            samples.append(SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=labels)))
        return dict(inputs=images, data_samples=samples)
    counts = [step['num_views'] for step in steps if step['type'] == 'MultiView']
    views = sum(sum(count) if isinstance(count, list) else count for count in counts)
    samples = [DataSample().set_gt_label(i % CLASSES) for i in range(BATCH)]
    batch = torch.stack(images)
    # self-supervised models take views of each image
    return dict(inputs=[batch] * views if views else batch, data_samples=samples)
