#!/usr/bin/env python
"""Draw the kernels and position embeddings that the ParC layers of a checkpoint have learned.

A picture for each layer, kernels by the offset at which a tap looks, and an overview of all layers.
mmparc/analysis/kernels.py says how a kernel is read.
"""

import argparse
import math
import shlex
import sys
import textwrap
import warnings
from pathlib import Path

try:
    import matplotlib

    matplotlib.use('Agg')
    import torch
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator
    from mmengine.logging import MMLogger

    from mmparc import engine
    from mmparc.analysis import figures, report
    from mmparc.analysis.kernels import Learned, learned_layers
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None

COLOURS = {'h': 'C0', 'w': 'C1'}
AXES = {'h': 'along H', 'w': 'along W'}
POSITION = {'kernel': 'offset of the tap', 'embedding': 'position'}
SPREAD = 'root mean square over channels'
ACROSS = 4  # panels of the overview beside each other


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    engine.add_config_arguments(parser)
    parser.add_argument('checkpoint', help="a file, or 'none' for the untrained model: the control")
    parser.add_argument('--seed', type=int, default=0, help='of random weights (0)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/kernels'), help='a folder')
    parser.add_argument(
        '--overview-only', action='store_true', help='kernels.png alone, no picture for each layer'
    )
    parser.add_argument('--force', action='store_true', help='overwrite what is there')
    return parser.parse_args()


# Layers


def draw_map(panel: plt.Axes, part: Learned, limit: float) -> None:
    """Channels by positions, signed values about 0; of dense kernels the norm of each pair."""
    values = part.channels
    rows, columns = values.shape
    title = f'{part.kind} {AXES[part.axis]}'
    if part.is_dense:
        image = panel.imshow(
            values, cmap='viridis', vmin=0, vmax=limit, aspect='auto', interpolation='nearest'
        )
        panel.set(title=f'{title}: norm of {part.values.shape[-1]} taps')
        panel.set(xlabel='input channel', ylabel='output channel')
    else:
        first = part.positions[0]
        image = panel.imshow(
            values,
            cmap='RdBu_r',
            vmin=-limit,
            vmax=limit,
            aspect='auto',
            interpolation='nearest',
            extent=(first - 0.5, first + columns - 0.5, rows - 0.5, -0.5),
        )
        panel.set(title=title, xlabel=POSITION[part.kind], ylabel='channel')
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator('auto', integer=True, min_n_ticks=1))
    panel.figure.colorbar(image, ax=panel, extend='max' if part.is_dense else 'both', pad=0.02)


def draw_profile(panel: plt.Axes, part: Learned) -> None:
    panel.plot(part.positions, part.profile.numpy(), color=COLOURS[part.axis], marker='.')
    over = 'pairs of channels' if part.is_dense else 'channels'
    panel.set(xlabel=POSITION[part.kind], ylabel=f'RMS over {over}')
    finish(panel)


def finish(panel: plt.Axes) -> None:
    """Let a profile's scale begin at 0, with room above it."""
    panel.set_ylim(0, 1.15 * max(line.get_ydata().max() for line in panel.lines) or 1.0)
    panel.xaxis.set_major_locator(MaxNLocator('auto', integer=True, min_n_ticks=1))
    panel.grid(alpha=0.3)


def limit_of(part: Learned) -> float:
    """The end of the colour bar: all values but one of 200, so that an outlier hides no others."""
    values = part.channels.abs().flatten().float()
    return values.kthvalue(math.ceil(0.995 * len(values))).values.item() or 1.0


def draw_layer(layer: str, parts: list[Learned], label: str, path: Path) -> None:
    """Maps above profiles; maps of one kind have one scale."""
    limits = {}
    for part in parts:
        limits[part.kind] = max(limits.get(part.kind, 0.0), limit_of(part))
    size = 4.3 * len(parts), 7.5
    figure, axes = plt.subplots(
        2, len(parts), figsize=size, layout='constrained', squeeze=False, height_ratios=(3, 1)
    )
    for (above, below), part in zip(axes.T, parts):
        draw_map(above, part, limits[part.kind])
        draw_profile(below, part)
    figure.suptitle(textwrap.fill(f'{layer} of {label}', 20 * len(parts) + 20))
    figure.savefig(path, dpi=90)
    plt.close(figure)


# The overview


def draw_all(layers: dict[str, list[Learned]], label: str, path: Path) -> None:
    """A panel for each layer with kernels, and one for each with embeddings below."""
    groups = {
        kind: {name: own for name, parts in layers.items() if (own := of_kind(parts, kind))}
        for kind in POSITION
    }
    groups = {kind: group for kind, group in groups.items() if group}
    across = min(ACROSS, len(layers))
    down = [-(-len(group) // across) for group in groups.values()]
    figure = plt.figure(figsize=(3.6 * across + 0.4, 2.1 * sum(down) + 1.5), layout='constrained')
    sections = figure.subfigures(
        len(groups), 1, squeeze=False, height_ratios=[n + 0.3 for n in down]
    )[:, 0]
    for section, rows, (kind, group) in zip(sections, down, groups.items()):
        panels = section.subplots(rows, across, squeeze=False).flatten()
        for panel, (name, parts) in zip(panels, group.items()):
            for part in parts:
                panel.plot(
                    part.positions,
                    part.profile.numpy(),
                    color=COLOURS[part.axis],
                    marker='.',
                    label=AXES[part.axis],
                )
            panel.set_title(short(name), fontsize='small')
            finish(panel)
        panels[0].legend(fontsize='x-small', loc='lower right')
        for panel in panels[len(group) :]:
            panel.axis('off')
        section.suptitle(f'{kind}s: {SPREAD}, by the {POSITION[kind]}')
    figure.suptitle(textwrap.fill(label, 30 * across))
    figure.savefig(path, dpi=80)
    plt.close(figure)


def of_kind(parts: list[Learned], kind: str) -> list[Learned]:
    return [part for part in parts if part.kind == kind]


def short(layer: str) -> str:
    return textwrap.fill(layer.removeprefix('backbone.'), 40)


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


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    warnings.simplefilter('ignore')  # upstream's constructors
    MMLogger.get_current_instance().setLevel('ERROR')
    cfg = engine.load_config(args.config, args.cfg_options)
    torch.manual_seed(args.seed)
    layers = learned_layers(engine.build_trained(cfg, args.checkpoint))
    if not layers:
        raise engine.UserError(f"the model of '{args.config}' has no ParC layer to draw")
    pictures = {} if args.overview_only else {layer: f'{layer}.png' for layer in layers}
    names = ['kernels.csv', 'kernels.png', *pictures.values()]
    figures.make_folder(args.out, names, args.force)
    (label,) = figures.labels([(args.config, args.checkpoint)])
    comments = [
        f'command: {shlex.join(["tools/analysis/draw_kernels.py", *sys.argv[1:]])}',
        'position: of kernels the offset at which the tap looks, of embeddings from 0',
        'rms: root of the mean square over channels, of dense kernels over pairs of channels',
    ]
    report.write_csv(args.out / 'kernels.csv', comments, rows_of(layers))
    draw_all(layers, label, args.out / 'kernels.png')
    for layer, file in report.track(list(pictures.items()), lambda item: item[0]):
        draw_layer(layer, layers[layer], label, args.out / file)
    print(*(args.out / name for name in names), sep='\n')


if __name__ == '__main__':
    main()
