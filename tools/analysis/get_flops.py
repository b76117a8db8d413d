#!/usr/bin/env python
"""Count the parameters and multiply-adds of any config of the three tasks, ParC by each backend.

On the CPU, with random weights, for one image; mmparc/analysis/flops.py says what counts how much.
"""

import argparse

from mmparc import tool


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tool.add_config_arguments(parser)
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar=('H', 'W'),
        help="the image, a square one if W is left out; by default the config's own: the crop of "
        'test images (classification) or of training images (segmentation), or what test images '
        'are resized to (detection)',
    )
    return parser


def main(args: argparse.Namespace) -> None:
    from mmparc import engine
    from mmparc.analysis.flops import count_config
    from mmparc.analysis.report import markdown
    from mmparc.engine.errors import first_line

    size = None
    if args.shape:
        if len(args.shape) > 2 or min(args.shape) < 1:
            raise tool.UserError(f'--shape takes one or two positive numbers, got {args.shape}')
        size = args.shape[0], args.shape[-1]
    cfg = engine.load_config(args.config, args.cfg_options)
    engine.check_types(cfg)
    tool.quiet()
    try:
        report = count_config(cfg, size)
    except RuntimeError as error:  # torch's, of shapes
        raise tool.UserError(
            f'the model cannot take such an image: {first_line(error)}: pass another --shape, or '
            'correct the channels in the config'
        ) from error

    (height, width), (h, w) = report.size, report.padded
    padded = '' if report.size == report.padded else f', padded to {h} x {w}'
    print(f'config:     {args.config}')
    print(f'image:      {height} x {width} ({report.source}{padded})')
    print(f'parameters: {report.params:,}\n')
    rows = [
        [backend or '(no ParC)', f'{count.total / 1e9:,.4f} G', f'{count.parc / 1e6:,.3f} M']
        for backend, count in report.counts.items()
    ]
    print(markdown(['ParC by', 'multiply-adds', 'of which ParC'], rows, 1))
    unknown = {op: n for count in report.counts.values() for op, n in count.unknown.items()}
    if unknown:
        listed = ', '.join(f'{op} x {n}' for op, n in sorted(unknown.items()))
        print(f'\nnot counted, since unknown: {listed}')


if __name__ == '__main__':
    tool.run(make_parser(), main)
