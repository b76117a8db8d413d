"""Draw what ParC layers have learned: the kernels and position embeddings of a checkpoint.

Tap k of a kernel looks k positions ahead, around the end of the map (mmparc/ops/reference.py), so
the taps of its second half look back: tap K - 1 at the position just before. Kernels are shown by
offset, from -(K // 2) on, so that neighbours stand beside each other.
"""

import argparse
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from mmparc import engine
from mmparc.analysis import figures, report
from mmparc.analysis.figures import plt
from mmparc.layers import ResizedOnLoad
from mmparc.models import ParCConv

COLOURS = {'h': 'C0', 'w': 'C1'}
AXES = {'h': 'along H', 'w': 'along W'}
POSITION = {'kernel': 'offset of the tap', 'embedding': 'position'}
ACROSS = 4  # panels of the overview beside each other


def run(args: argparse.Namespace) -> None:
    """Write kernels.csv, kernels.png and a picture for each layer to ``args.out``."""
    cfg = engine.load_config(args.config, args.cfg_options)
    torch.manual_seed(0)  # of random weights
    layers = learned_layers(engine.build_trained(cfg, args.checkpoint))
    if not layers:
        raise engine.UserError(f"the model of '{args.config}' has no ParC layer to draw")
    pictures = {} if args.overview_only else {layer: f'{layer}.png' for layer in layers}
    names = ['kernels.csv', 'kernels.png', *pictures.values()]
    report.make_folder(args.out, names, args.force)
    (label,) = figures.labels([(args.config, args.checkpoint)])
    comments = [
        report.command(),
        'position: of kernels the offset at which the tap looks, of embeddings from 0',
        'rms: root of the mean square over channels, of dense kernels over pairs of channels',
    ]
    report.write_csv(args.out / 'kernels.csv', comments, rows_of(layers))
    draw_all(layers, label, args.out / 'kernels.png')
    for layer, file in report.track(list(pictures.items()), lambda item: item[0]):
        draw_layer(layer, layers[layer], label, args.out / file)
    print(*(args.out / name for name in names), sep='\n')


@dataclass(frozen=True)
class Learned:
    """A kernel or a position embedding.

    Attributes:
        name: in the model's state dict.
        kind: 'kernel' or 'embedding'.
        axis: 'h' or 'w'.
        values: (C_out, C_in / groups, K) of a kernel, (C, K) of an embedding.
    """

    name: str
    kind: str
    axis: str
    values: Tensor

    @property
    def positions(self) -> list[int]:
        """Of a kernel the offsets of its taps in order, of an embedding the positions from 0."""
        length = self.values.shape[-1]
        first = -(length // 2) if self.kind == 'kernel' else 0
        return list(range(first, first + length))

    @property
    def by_position(self) -> Tensor:
        """The values, their last axis in the order of :attr:`positions`."""
        if self.kind == 'embedding':
            return self.values
        return self.values.roll(self.values.shape[-1] // 2, dims=-1)

    @property
    def is_dense(self) -> bool:
        """Whether it has kernels for pairs of channels."""
        return self.kind == 'kernel' and self.values.shape[1] > 1

    @property
    def channels(self) -> Tensor:
        """By channel: (C, K) in the order of positions.

        Of dense kernels instead the norm over the taps for each pair of channels,
        (C_out, C_in / groups).
        """
        if self.is_dense:
            return torch.linalg.vector_norm(self.values, dim=-1)
        return self.by_position.flatten(0, -2)

    @property
    def profile(self) -> Tensor:
        """(K,): at each of the positions, the root of the mean square over (pairs of) channels."""
        return self.by_position.flatten(0, -2).square().mean(0).sqrt()


def learned_layers(model: nn.Module) -> dict[str, list[Learned]]:
    """{layer: its kernels and then its embeddings}, in the model's order.

    What has a common parent is one layer: the two halves of a ParCMixer, and ParC-Net's pair along
    one axis and then the other.
    """
    layers: dict[str, list[Learned]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, ResizedOnLoad):
            continue
        # An embedding of a layer's own, in front of its norm, is the parent's (ParC-Net).
        layer = name.rpartition('.')[0] if isinstance(module, ParCConv) else name
        for key in module.resized_on_load():
            parameter = getattr(module, key)
            if parameter is not None:
                kind = 'kernel' if key == 'weight' else 'embedding'
                path = f'{name}.{key}' if name else key
                learned = Learned(path, kind, module.axis, parameter.detach().cpu())
                layers.setdefault(layer, []).append(learned)
    for parts in layers.values():
        parts.sort(key=lambda part: part.kind, reverse=True)  # stable: kernels first
    return layers


# A picture for each layer


def draw_layer(layer: str, parts: list[Learned], label: str, path: Path) -> None:
    """Maps of all channels beside each other; those of one kind have one scale."""
    size = 4.3 * len(parts), 5.5
    figure, panels = plt.subplots(1, len(parts), figsize=size, layout='constrained', squeeze=False)
    for panel, part in zip(panels[0], parts):
        draw_map(panel, part, max(limit_of(p) for p in parts if p.kind == part.kind))
    figure.suptitle(textwrap.fill(f'{layer} of {label}', 20 * len(parts) + 20))
    figures.save(figure, path)


def draw_map(panel: plt.Axes, part: Learned, limit: float) -> None:
    """Channels by positions, signed values about 0; of dense kernels the norm of each pair."""
    values = part.channels
    title = f'{part.kind} {AXES[part.axis]}'
    style = dict(aspect='auto', interpolation='nearest', vmax=limit)
    if part.is_dense:
        image = panel.imshow(values, cmap='viridis', vmin=0, **style)
        panel.set(title=f'{title}: norm of {part.values.shape[-1]} taps')
        panel.set(xlabel='input channel', ylabel='output channel')
    else:
        (rows, columns), first = values.shape, part.positions[0]
        extent = first - 0.5, first + columns - 0.5, rows - 0.5, -0.5
        image = panel.imshow(values, cmap='RdBu_r', vmin=-limit, extent=extent, **style)
        panel.set(title=title, xlabel=POSITION[part.kind], ylabel='channel')
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator('auto', integer=True, min_n_ticks=1))
    panel.figure.colorbar(image, ax=panel, extend='max' if part.is_dense else 'both', pad=0.02)


def limit_of(part: Learned) -> float:
    """The end of the colour bar: 99.5 % of the values, so that an outlier hides no others."""
    values = part.channels.abs().flatten().float()
    return values.kthvalue(math.ceil(0.995 * len(values))).values.item() or 1.0


# The overview


def draw_all(layers: dict[str, list[Learned]], label: str, path: Path) -> None:
    """The profiles of all layers, a panel each: kernels above, embeddings below."""
    groups = {}
    for layer, parts in layers.items():
        for part in parts:
            groups.setdefault(part.kind, {}).setdefault(layer, []).append(part)
    across = min(ACROSS, len(layers))
    down = [math.ceil(len(group) / across) for group in groups.values()]
    figure = plt.figure(figsize=(3.6 * across + 0.4, 2.1 * sum(down) + 1.5), layout='constrained')
    sections = figure.subfigures(
        len(groups), 1, squeeze=False, height_ratios=[n + 0.3 for n in down]
    )[:, 0]
    for section, rows, (kind, group) in zip(sections, down, groups.items()):
        panels = section.subplots(rows, across, squeeze=False).flatten()
        for panel in panels[len(group) :]:
            panel.axis('off')
        for panel, (layer, parts) in zip(panels, group.items()):
            for part in parts:
                style = dict(color=COLOURS[part.axis], marker='.', label=AXES[part.axis])
                panel.plot(part.positions, part.profile.numpy(), **style)
            panel.set_title(textwrap.fill(layer.removeprefix('backbone.'), 40), fontsize='small')
            # from 0, with room above
            panel.set_ylim(0, 1.15 * max(line.get_ydata().max() for line in panel.lines) or 1.0)
            panel.xaxis.set_major_locator(MaxNLocator('auto', integer=True, min_n_ticks=1))
            panel.grid(alpha=0.3)
        panels[0].legend(fontsize='x-small', loc='lower right')
        section.suptitle(f'{kind}s: root mean square over channels, by the {POSITION[kind]}')
    figure.suptitle(textwrap.fill(label, 30 * across))
    figures.save(figure, path, dpi=80)


def rows_of(layers: dict[str, list[Learned]]) -> list[dict[str, object]]:
    return [
        {
            'layer': layer,
            'parameter': part.name,
            'kind': part.kind,
            'axis': part.axis,
            'position': position,
            'rms': f'{value:.6g}',
        }
        for layer, parts in layers.items()
        for part in parts
        for position, value in zip(part.positions, part.profile.tolist())
    ]
