#!/usr/bin/env python
"""Count the parameters and multiply-adds of any config of the three tasks, ParC by each backend.

On the CPU, with random weights, for one image; mmparc/analysis/flops.py says what counts how much.
"""

import argparse
import warnings

try:
    from mmengine.logging import MMLogger
    from rich.console import Console
    from rich.table import Table

    from mmparc import engine
    from mmparc.analysis.flops import count_config
    from mmparc.engine.errors import first_line
    from mmparc.ops import BACKENDS
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    engine.add_config_arguments(parser)
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar=('H', 'W'),
        help="the image, a square one if W is left out; by default the config's own: the crop of "
        'test images (classification) or of training images (segmentation), or what test images '
        'are resized to (detection)',
    )
    parser.add_argument(
        '--backend', nargs='+', choices=BACKENDS, default=BACKENDS, help='default: all three'
    )
    return parser.parse_args()


def size_of(shape: list[int] | None) -> tuple[int, int] | None:
    if shape is None:
        return None
    if len(shape) > 2 or min(shape) < 1:
        raise engine.UserError(f'--shape takes one or two positive numbers, H W, got {shape}')
    return shape[0], shape[-1]


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    size = size_of(args.shape)
    cfg = engine.load_config(args.config, args.cfg_options)
    engine.check_model_types(cfg)
    # A trace and upstream's constructors warn of much that a count has nothing to do with.
    warnings.simplefilter('ignore')
    MMLogger.get_current_instance().setLevel('ERROR')
    try:
        report = count_config(cfg, size, args.backend)
    except RuntimeError as error:  # torch's, of shapes
        raise engine.UserError(
            f'the model cannot take such an image: {first_line(error)}: pass another --shape, or '
            'mend the channels in the config'
        ) from error

    (height, width), (h, w) = report.size, report.padded
    padded = '' if report.size == report.padded else f', padded to {h} x {w}'
    console = Console(soft_wrap=True, markup=False)
    console.print(f'config:     {args.config}')
    console.print(f'image:      {height} x {width} ({report.source}{padded})')
    console.print(f'parameters: {report.params:,}')
    table = Table('ParC by')
    for column in ('multiply-adds', 'of which ParC'):
        table.add_column(column, justify='right')
    for backend, count in report.counts.items():
        total, parc = f'{count.total / 1e9:,.4f} G', f'{count.parc / 1e6:,.3f} M'
        table.add_row(backend or '(no ParC)', total, parc if backend else '-')
    if '' not in report.counts:
        count = next(iter(report.counts.values()))
        table.add_section()
        table.add_row('all but ParC', f'{(count.total - count.parc) / 1e9:,.4f} G', '-')
    console.print(table)
    unknown = {op: n for count in report.counts.values() for op, n in count.unknown.items()}
    if unknown:
        listed = ', '.join(f'{op} x {n}' for op, n in sorted(unknown.items()))
        console.print(f'not counted, since unknown: {listed}')


if __name__ == '__main__':
    main()
