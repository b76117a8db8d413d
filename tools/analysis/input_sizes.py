#!/usr/bin/env python
"""Draw a checkpoint's accuracy against the size of its input, by the rule that resizes kernels.

The size is the shorter side in pixels, from half to twice that of the config's own test; the metric
is that of the config's evaluator. mmparc/analysis/input_sizes.py says what changes with the size.
"""

import argparse
import copy
import shlex
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from mmengine.config import Config
    from mmengine.logging import MMLogger

    from mmparc import engine
    from mmparc.analysis import figures, report
    from mmparc.analysis.input_sizes import (
        METRICS,
        at_size,
        kernel_rules,
        metrics_of,
        own_size,
        sizes_around,
    )
    from mmparc.engine.errors import first_line
    from mmparc.ops.resize import RESIZES
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None

PLAIN = '-'  # the rule of networks without ParC
LINES = {RESIZES[0]: '-', RESIZES[1]: '--', PLAIN: ':'}
MARKS = {RESIZES[0]: 'o', RESIZES[1]: 's', PLAIN: '^'}


@dataclass(frozen=True)
class Source:
    """A trained model to measure: at which sizes, and by which rules of its kernels.

    Attributes:
        own_rules: those that it was trained with, in one word.
        own_size: at which its config tests.
    """

    label: str
    cfg: Config
    checkpoint: str
    metric: str
    rules: Sequence[str]
    own_rules: str
    sizes: Sequence[int]
    own_size: int


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'pairs',
        nargs='+',
        metavar='CONFIG CKPT',
        help="a config and its checkpoint, or 'none' for random weights, the control; repeatable",
    )
    parser.add_argument(
        '--sizes', type=int, nargs='+', metavar='N', help='in pixels; default: a handful'
    )
    parser.add_argument(
        '--metric', help="a key of the test's metrics; default: top-1 accuracy, box AP or mIoU"
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/input_sizes'), help='a folder')
    parser.add_argument('--force', action='store_true', help='overwrite what is there')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=engine.DictAction,
        metavar='KEY=VALUE',
        help='override entries of each config; data_root=DIR moves the data set',
    )
    return parser.parse_args()


def read_sources(args: argparse.Namespace) -> list[Source]:
    """Build each model once, so that what does not fit is said before anything is measured."""
    if len(args.pairs) % 2:
        raise engine.UserError(
            f"'{args.pairs[-1]}' has no checkpoint: pass pairs of CONFIG and CKPT, or none"
        )
    pairs = list(zip(args.pairs[::2], args.pairs[1::2]))
    sources = []
    for label, (config, checkpoint) in zip(figures.labels(pairs), pairs):
        cfg = engine.load_config(config, args.cfg_options)
        engine.check_data(cfg, 'test_dataloader')
        own_rules = kernel_rules(engine.build_trained(copy.deepcopy(cfg), checkpoint))
        size = own_size(cfg)
        sources.append(
            Source(
                label=label,
                cfg=cfg,
                checkpoint=checkpoint,
                metric=args.metric or METRICS[cfg.default_scope],
                rules=RESIZES if own_rules else [PLAIN],
                own_rules=' and '.join(own_rules) or PLAIN,
                sizes=sorted(set(args.sizes or sizes_around(size))),
                own_size=size,
            )
        )
    return sources


def measure(source: Source, rule: str, size: int) -> dict[str, object]:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        resized = at_size(source.cfg, size, source.own_size)
        cfg = figures.for_measuring(resized, folder)
        try:
            metrics = metrics_of(cfg, source.checkpoint, None if rule == PLAIN else rule)
        except engine.UserError:
            raise
        except Exception as error:  # upstream's models may raise anything
            raise engine.UserError(
                f'{source.label} at {size} pixels: {first_line(error)}: pass other --sizes'
            ) from error
    if source.metric not in metrics:
        known = ', '.join(metrics) or 'none'
        raise engine.UserError(
            f"the test of {source.label} gives no '{source.metric}': pass --metric, one of {known}"
        )
    return {
        'model': figures.config_name(source.cfg.filename),
        'checkpoint': source.checkpoint,
        'resize': rule,
        'config resize': source.own_rules,
        'size': size,
        'factor': f'{size / source.own_size:.4g}',
        'metric': source.metric,
        'value': f'{metrics[source.metric]:.6g}',
    }


def draw(measured: Sequence[tuple[Source, dict]], path: Path) -> None:
    """A panel for each metric, a colour for each model, a line for each rule."""
    sources = list({source.label: source for source, _ in measured}.values())
    metrics = list(dict.fromkeys(source.metric for source in sources))
    size = 7.5 * len(metrics), 5.5
    figure, axes = plt.subplots(1, len(metrics), figsize=size, layout='constrained', squeeze=False)
    for panel, metric in zip(axes[0], metrics):
        shown = [source for source in sources if source.metric == metric]
        for number, source in enumerate(shown):
            for rule in source.rules:
                rows = [row for s, row in measured if s is source and row['resize'] == rule]
                what = f"{rule} (the config's)" if rule == source.own_rules else rule
                panel.plot(
                    [row['size'] for row in rows],
                    [float(row['value']) for row in rows],
                    color=f'C{number}',
                    linestyle=LINES[rule],
                    marker=MARKS[rule],
                    label=f'{source.label}: {"no ParC" if rule == PLAIN else what}',
                )
        for size in {source.own_size for source in shown}:
            panel.axvline(size, color='grey', linewidth=1, alpha=0.5, zorder=0)
        sizes = sorted({size for source in shown for size in source.sizes})
        panel.set_xscale('log', base=2)
        panel.set_xticks(sizes, map(str, sizes))
        panel.minorticks_off()
        panel.set(
            title=metric,
            xlabel="shorter side of the input, pixels (line: the config's own)",
            ylim=(0, None),
        )
        panel.grid(alpha=0.3)
        panel.legend(fontsize='small', loc='upper center', bbox_to_anchor=(0.5, -0.13))
    figure.suptitle('Accuracy against input size')
    figure.savefig(path, dpi=110)
    plt.close(figure)


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    if min(args.sizes or [1]) < 1:
        raise engine.UserError('--sizes takes positive numbers')
    warnings.simplefilter('ignore')  # upstream's constructors
    MMLogger.get_current_instance().setLevel('ERROR')
    sources = read_sources(args)
    names = ['input_sizes.csv', 'input_sizes.png']
    figures.make_folder(args.out, names, args.force)
    comments = [
        f'command: {shlex.join(["tools/analysis/input_sizes.py", *sys.argv[1:]])}',
        "size: the input's shorter side in pixels; factor: of the size of the config's own test",
        "resize: the rule for the kernels of ParC; config resize: the config's own",
    ]
    steps = [(s, rule, size) for s in sources for rule in s.rules for size in s.sizes]
    measured = []
    for step in report.track(steps, lambda step: f'{step[0].label}, {step[1]}, {step[2]} pixels'):
        measured.append((step[0], measure(*step)))
        # each time, so that what is measured is there if a later one fails
        report.write_csv(args.out / names[0], comments, [row for _, row in measured])
    draw(measured, args.out / names[1])
    print(*(args.out / name for name in names), sep='\n')


if __name__ == '__main__':
    main()
