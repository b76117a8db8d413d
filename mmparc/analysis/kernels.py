"""Draw what ParC layers have learned: the kernels and position embeddings of a checkpoint.

Tap k of a kernel looks k positions ahead, around the end of the map (mmparc/ops/reference.py), so
the taps of its second half look back: tap K - 1 at the position just before. Kernels are shown by
offset, from -(K // 2) on, so that neighbours stand beside each other.
"""

import argparse
import math
import textwrap
from pathlib import Path

import torch
from matplotlib.ticker import MaxNLocator
from torch import nn

from mmparc import engine
from mmparc.analysis import figures, report
from mmparc.analysis.figures import plt
from mmparc.layers import ResizedOnLoad
from mmparc.models import ParCConv

POSITION = {'kernel': 'offset of the tap', 'embedding': 'position'}
ACROSS = 4  # panels beside each other


def run(args: argparse.Namespace) -> None:
    """Write kernels.csv and kernels.png to ``args.out``."""
    cfg = engine.load_config(args.config, args.cfg_options)
    torch.manual_seed(0)  # of random weights
    rows = rows_of(engine.build_trained(cfg, args.checkpoint))
    if not rows:
        raise engine.UserError(f"the model of '{args.config}' has no ParC layer to draw")
    table, picture = report.make_folder(args.out, ['kernels.csv', 'kernels.png'], args.force)
    comments = [
        report.command(),
        'position: of kernels the offset at which the tap looks, of embeddings from 0',
        'rms: root of the mean square over channels, of dense kernels over pairs of channels',
    ]
    report.write_csv(table, comments, rows)
    (label,) = figures.labels([(args.config, args.checkpoint)])
    draw(rows, label, picture)
    print(table, picture, sep='\n')


def rows_of(model: nn.Module) -> list[dict[str, object]]:
    """A row for each position of each kernel and embedding, in the model's order.

    What has a common parent is one layer: the two halves of a ParCMixer, and ParC-Net's pair along
    one axis and then the other.
    """
    rows = []
    for name, module in model.named_modules():
        if not isinstance(module, ResizedOnLoad):
            continue
        # An embedding of a layer's own, in front of its norm, is the parent's (ParC-Net).
        layer = name.rpartition('.')[0] if isinstance(module, ParCConv) else name
        for key in module.resized_on_load():
            parameter = getattr(module, key)
            if parameter is None:
                continue
            profile = parameter.detach().cpu().flatten(0, -2).square().mean(0).sqrt()
            kind, first = 'embedding', 0
            if key == 'weight':
                kind, first = 'kernel', -(len(profile) // 2)
                profile = profile.roll(-first)
            own = dict(layer=layer, parameter=f'{name}.{key}'.lstrip('.'), kind=kind)
            own['axis'] = module.axis
            rows += [
                {**own, 'position': position, 'rms': f'{value:.6g}'}
                for position, value in enumerate(profile.tolist(), first)
            ]
    return rows


def draw(rows: list[dict], label: str, path: Path) -> None:
    """A panel for each layer: its kernels above, its embeddings below."""
    layers = {kind: [] for kind in POSITION}
    for row in rows:
        if row['layer'] not in layers[row['kind']]:
            layers[row['kind']].append(row['layer'])
    layers = {kind: names for kind, names in layers.items() if names}
    across = min(ACROSS, max(map(len, layers.values())))
    down = [math.ceil(len(names) / across) for names in layers.values()]
    figure = plt.figure(figsize=(3.6 * across + 0.4, 2.1 * sum(down) + 1.5), layout='constrained')
    sections = figure.subfigures(len(layers), 1, squeeze=False, height_ratios=down)[:, 0]
    for section, height, (kind, names) in zip(sections, down, layers.items()):
        panels = section.subplots(height, across, squeeze=False).flatten()
        for panel in panels[len(names) :]:
            panel.axis('off')
        for panel, name in zip(panels, names):
            own = [row for row in rows if (row['layer'], row['kind']) == (name, kind)]
            for parameter in dict.fromkeys(row['parameter'] for row in own):
                points = [row for row in own if row['parameter'] == parameter]
                axis = points[0]['axis']
                panel.plot(
                    [row['position'] for row in points],
                    [float(row['rms']) for row in points],
                    color={'h': 'C0', 'w': 'C1'}[axis],
                    marker='.',
                    label=f'along {axis.upper()}',
                )
            panel.set_title(textwrap.fill(name.removeprefix('backbone.'), 40), fontsize='small')
            panel.set_ylim(bottom=0)
            panel.xaxis.set_major_locator(MaxNLocator('auto', integer=True, min_n_ticks=1))
            panel.grid(alpha=0.3)
        panels[0].legend(fontsize='x-small', loc='lower right')
        section.suptitle(f'{kind}s: root mean square over channels, by the {POSITION[kind]}')
    figure.suptitle(textwrap.fill(label, 30 * across))
    figures.save(figure, path, dpi=80)
