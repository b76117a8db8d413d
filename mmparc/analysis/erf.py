"""Draw effective receptive fields: how much each pixel contributes to the middle of the last map.

Luo et al., 2016 (arXiv 1701.04128), measured as in RepLKNet (Ding et al., 2022, arXiv 2203.06717):
the values of the last map's central position are rectified and summed over the channels, and this
sum is differentiated by the pixels. (Rectified, since a LayerNorm's channels add up to a constant.)
A pixel's contribution is the gradient's absolute value, summed over the input's channels and
averaged over images; RepLKNet keeps the positive part alone, but what lowers an output counts, too.
"""

import argparse
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
import torch
from matplotlib.colors import LogNorm
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mmparc import engine
from mmparc.analysis import figures, report
from mmparc.analysis.figures import plt
from mmparc.engine.config import are_rgb, image_settings
from mmparc.engine.errors import first_line
from mmparc.errors import UserError
from mmparc.models import ParCConv
from mmparc.swap.fragments import IMAGES, load_fragment, twin_names

ALMOST_NOTHING = 1e-3  # a scale that hides its branch: layer scales begin at 1e-6 to 1e-4


@dataclass(frozen=True)
class Field:
    """An effective receptive field, and the share of the image's area that holds so much of it.

    Attributes:
        contribution: (H, W), what each pixel contributes; at least 0, not all 0, in any unit.
        centre: (y, x) of the middle of the field, in pixels from the upper left corner.
    """

    contribution: Tensor
    centre: tuple[float, float]

    def pixels(self, percent: float) -> float:
        """The smallest set of pixels that holds so much of the contribution, as a share of all.

        It takes the shape of the field: of a cross it counts the arms and not what lies between
        them, and it needs no centre. ``percent`` is above 0 and at most 100; the share is one of 1.
        """
        held = self.contribution.double().flatten().sort(descending=True).values.cumsum(0)
        return (int((held < percent / 100 * held[-1]).sum()) + 1) / len(held)

    def rectangle(self, percent: float) -> float:
        """The smallest rectangle about the centre that holds so much, as a share of the area.

        RepLKNet's measure: how far the field reaches. The rectangle has the image's aspect ratio,
        consists of whole pixels and ends where the image does. Of a cross it counts what lies
        between the arms as well. ``percent`` and share as in :meth:`pixels`.
        """
        (height, width), (y, x) = self.contribution.shape, self.centre
        # the size, in images, of the smallest such rectangle around each pixel
        down = ((torch.arange(height).double() + 0.5 - y).abs() + 0.5) * 2 / height
        right = ((torch.arange(width).double() + 0.5 - x).abs() + 0.5) * 2 / width
        sizes, order = torch.maximum(down[:, None], right).flatten().sort()
        held = self.contribution.double().cpu().flatten()[order].cumsum(0)
        size = sizes[int((held < percent / 100 * held[-1]).sum())]
        return int((sizes <= size + 1e-9).sum()) / len(sizes)


def receptive_field(backbone: nn.Module, images: Tensor) -> Field:
    """The effective receptive field of the middle of a backbone's last map, in evaluation mode.

    Of a map with an even number of rows or columns the middle is the first of the second half. The
    field's centre is that of the pixels which this position stands for, at equal distances; a
    padded convolution of stride 2 looks at pixels half a step up and to the left of these, at each
    stage.

    Args:
        backbone: a module that returns a map (B, C, h, w), or a list or tuple that ends with one.
            It is left in evaluation mode, and its parameters without gradients.
        images: (B, 3, H, W), as the backbone takes them, on its device; B > 0.

    Raises:
        ValueError: if the last output is no map, or no pixel counts for it.
    """
    # Parameters are switched off rather than left out of a torch.autograd.grad, which with_cp's
    # reentrant checkpoints refuse.
    backbone.eval()  # some of mmpretrain's return None
    backbone.requires_grad_(False)
    height, width = images.shape[2:]
    contribution = torch.zeros(height, width, dtype=torch.float64, device=images.device)
    for image in images.detach():  # one at a time: memory for one
        pixels = image[None].clone().requires_grad_()
        last = backbone(pixels)
        while isinstance(last, list | tuple) and last:
            last = last[-1]
        if not isinstance(last, Tensor) or last.dim() != 4:
            what = tuple(last.shape) if isinstance(last, Tensor) else type(last).__name__
            raise ValueError(f"the backbone's last output is no map (B, C, h, w) but {what}")
        rows, columns = last.shape[2:]
        row, column = rows // 2, columns // 2
        if last.requires_grad:
            last[:, :, row, column].relu().sum().backward()
            contribution += pixels.grad[0].abs().sum(0)
    if not contribution.any():
        raise ValueError('no pixel contributes to the middle of the map')
    centre = (row + 0.5) * height / rows, (column + 0.5) * width / columns
    return Field(contribution / len(images), centre)


def prepare_untrained(backbone: nn.Module, images: Tensor) -> None:
    """Let every branch of a network with random weights count, as in training.

    Scales that start at (almost) nothing, such as ConvNeXt's layer scale of 1e-6 and the last norm
    of a ResNet's block, become 1: with them each block is its skip path, and the fields of twins
    are those of their stems. And batch norms take the statistics of these images, as they would in
    a training step; with those that they are made with (0 and 1) a branch weighs whatever its
    initial weights happen to give. Those behind a global average keep them: what tells a few images
    of noise apart there is so little that it would be amplified out of all proportion.

    Args:
        backbone: it is changed in place, and left in evaluation mode.
        images: (B, 3, H, W), as the backbone takes them, on its device.
    """
    for name, parameter in backbone.named_parameters():
        bias = name.rpartition('.')[2].endswith('bias')
        if parameter.dim() == 1 and not bias and parameter.abs().max() <= ALMOST_NOTHING:
            nn.init.ones_(parameter)

    def take_statistics(norm: nn.Module, args: tuple[Tensor]) -> None:
        norm.train(args[0][0, 0].numel() > 1)
        norm.momentum = 1.0  # nothing stays of the statistics before

    backbone.eval()
    hooks = [
        module.register_forward_pre_hook(take_statistics)
        for module in backbone.modules()
        if isinstance(getattr(module, 'running_mean', None), Tensor)  # batch norms of any class
    ]
    with torch.no_grad():
        backbone(images)
    for hook in hooks:
        hook.remove()
    backbone.eval()


# The command

PERCENT = (20, 30, 50, 99)  # RepLKNet's
SUFFIXES = ('.jpg', '.jpeg', '.png')
ACROSS = 3  # pairs beside each other
CELLS = 56  # along the longer side of a field, where there are many
# One scale for all fields, so that they compare: a contribution over the mean one.
SCALE = dict(norm=LogNorm(1e-2, 1e2), cmap='magma', interpolation='nearest')


@dataclass(frozen=True)
class Source:
    """A backbone to build, and the checkpoint that it is from.

    ``statistics``: mean and std of the images' channels, and whether they are RGB, not BGR.
    """

    name: str
    build: Callable[[], nn.Module]
    statistics: tuple[Sequence[float], Sequence[float], bool]
    checkpoint: str = engine.UNTRAINED


def run(args: argparse.Namespace) -> None:
    """Write erf.csv, erf.md and erf.png to ``args.out``."""
    if args.inputs < 1 or min(args.shape) < 1:
        raise UserError('--inputs and --shape take positive numbers')
    images = read_images(args.images, args.inputs, args.shape, args.seed)
    sources = sources_of(args)
    names = ['erf.csv', 'erf.md', 'erf.png']
    files = report.make_folder(args.out, names, args.force)
    measured = [measure(source, images, args.seed) for source in report.track(sources)]
    rows = [row for own, _ in measured for row in own]
    draw(measured, files[2])

    height, width = args.shape
    comments = [
        report.command(),
        f'{len(images)} images of {args.images or "noise"}, {height} x {width}; seed {args.seed}',
        'random weights (none): scales of almost nothing are 1, batch norms have the statistics of '
        'the images',
        'shares of the area in percent: the smallest set of pixels, and the smallest rectangle '
        'about the middle, that hold so many percent of the contribution',
    ]
    header = ['backbone', 'variant', 'checkpoint']
    header += [f'{kind}, {p} %' for kind in ('pixels', 'rectangle') for p in PERCENT]
    lines = [
        [*(own[0][key] for key in ('model', 'variant', 'checkpoint'))]
        + [row[f'{kind} %'] for kind in ('pixels', 'rectangle') for row in own]
        for own, _ in measured
    ]
    table = report.markdown(header, lines, 3) + '\n'
    print(table)
    report.write_csv(files[0], comments, rows)
    report.write_page(files[1], 'Effective receptive fields', comments, table)
    print(*files, sep='\n')


def sources_of(args: argparse.Namespace) -> list[Source]:
    """What is drawn, two in a row beside each other: twins by name, or configs."""
    if args.config:
        if args.names:
            raise UserError('pass names or --config, not both')
        return [config_source(*pair) for pair in args.config]
    for name in args.names:
        load_fragment(name)  # suggests a close name if there is no such one
    pairs = [pair for pair in twin_names() if {*pair} & {*(args.names or pair)}]
    return [fragment_source(name) for parc, plain in pairs for name in (plain, parc)]


def fragment_source(name: str) -> Source:
    fragment = load_fragment(name)

    def build() -> nn.Module:
        settings = {**fragment.for_maps, 'out_indices': fragment.out_indices[-1:]}
        with engine.building('the model'), DefaultScope.overwrite_default_scope('mmpretrain'):
            backbone = MODELS.build(settings)
        backbone.init_weights()
        return backbone

    images = fragment.images
    return Source(name, build, (images['mean'], images['std'], images['rgb']))


def config_source(config: str, checkpoint: str) -> Source:
    cfg = engine.load_config(config)
    if not isinstance(cfg.model.get('backbone'), dict):
        raise UserError(f"the model of '{config}' has no backbone (model.backbone)")
    engine.check_types(cfg)
    engine.check_checkpoint(checkpoint, 'to look at')
    images = image_settings(cfg)
    statistics = images.get('mean') or [0.0] * 3, images.get('std') or [1.0] * 3, are_rgb(images)
    name = figures.config_name(config)
    return Source(
        name, lambda: engine.build_trained(cfg, checkpoint).backbone, statistics, checkpoint
    )


def read_images(
    folder: Path | None, count: int, shape: Sequence[int], seed: int
) -> list[np.ndarray]:
    """Images (H, W, 3), float32, BGR, 0 to 255: a folder's, or noise of ImageNet's statistics."""
    height, width = shape
    if folder is None:
        values = np.random.default_rng(seed).standard_normal((count, height, width, 3))
        noise = values * IMAGES['std'] + IMAGES['mean']
        return list(noise[..., ::-1].astype(np.float32))
    if not folder.is_dir():
        raise UserError(f"there is no folder '{folder}': pass one of images")
    files = sorted(path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"'{folder}' holds no image ({', '.join(SUFFIXES)})")
    # evenly from all, since those of a class stand together
    count = min(count, len(files))
    images = []
    for path in (files[i * len(files) // count] for i in range(count)):
        image = mmcv.imread(path)
        if image is None:
            raise UserError(f"'{path}' is no image: remove it")
        images.append(mmcv.imresize(image, (width, height)).astype(np.float32))
    return images


def measure(source: Source, images: Sequence[np.ndarray], seed: int) -> tuple[list[dict], Field]:
    """A row for each share of the area, and the field itself."""
    mean, std, to_rgb = source.statistics
    settings = np.array(mean, np.float64), np.array(std, np.float64), to_rgb
    normalised = np.stack([mmcv.imnormalize(image, *settings) for image in images])
    inputs = torch.from_numpy(normalised).permute(0, 3, 1, 2).contiguous()
    torch.manual_seed(seed)
    backbone = revert_sync_batchnorm(source.build())
    # A classifier's last map instead of the vector that it makes of it.
    if getattr(backbone, 'gap_before_final_norm', False):
        backbone.gap_before_final_norm = False
    if getattr(backbone, 'out_type', None) in ('cls_token', 'avg_featmap', 'raw'):
        backbone.out_type = 'featmap'
    try:
        if source.checkpoint == engine.UNTRAINED:
            prepare_untrained(backbone, inputs)
        field = receptive_field(backbone, inputs)
    except Exception as error:  # upstream's backbones may raise anything
        shape = ' x '.join(map(str, inputs.shape))
        raise UserError(
            f'{source.name} on images of {shape}: {first_line(error)}: pass another --shape, or '
            'more --inputs'
        ) from error
    is_parc = any(isinstance(module, ParCConv) for module in backbone.modules())
    rows = [
        {
            'model': source.name,
            'variant': 'parc' if is_parc else 'plain',
            'checkpoint': source.checkpoint,
            'height': inputs.shape[2],
            'width': inputs.shape[3],
            'percent': percent,
            'pixels %': f'{field.pixels(percent) * 100:.4g}',
            'rectangle %': f'{field.rectangle(percent) * 100:.4g}',
        }
        for percent in PERCENT
    ]
    return rows, field


def draw(measured: Sequence[tuple[list[dict], Field]], path: Path) -> None:
    """All fields, two of a pair beside each other, each with the pixels that hold 50 and 99 %."""
    height, width = measured[0][1].contribution.shape
    pairs = math.ceil(len(measured) / 2)
    across = min(ACROSS, pairs)
    down = math.ceil(pairs / across)
    size = 4.2 * across + 1, (2 * height / width + 0.8) * down + 0.6
    figure, axes = plt.subplots(down, 2 * across, figsize=size, layout='constrained', squeeze=False)
    for panel in axes.flat:
        panel.axis('off')
    step = max(1.0, max(height, width) / CELLS)
    cells = [max(1, round(n / step)) for n in (height, width)]
    for panel, (rows, field) in zip(axes.flat, measured):
        values = field.contribution
        means = adaptive_avg_pool2d(values[None] / values.mean(), cells)[0]
        extent = 0, width, height, 0
        image = panel.imshow(means.clamp(min=1e-9), extent=extent, **SCALE)
        panel.axis('on')
        panel.set(xticks=[], yticks=[])
        name, checkpoint = rows[0]['model'], Path(rows[0]['checkpoint']).name
        if checkpoint != engine.UNTRAINED:
            name = f'{name}, {checkpoint}'
        shares = ', '.join(f'{float(row["pixels %"]):.3g}' for row in rows[2:])
        title = f'{textwrap.fill(name, 28)}\n50, 99 % in {shares} %'
        panel.set_title(title, fontsize='small')
    figure.suptitle('Effective receptive fields')
    label = 'contribution / mean'
    figure.colorbar(image, ax=axes, label=label, extend='both', shrink=0.6, aspect=20)
    figures.save(figure, path, dpi=70 if pairs > 1 else 140)
