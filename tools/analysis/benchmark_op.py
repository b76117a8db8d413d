#!/usr/bin/env python
"""Time the ParC mixer, by every backend, beside the convolutions that it replaces.

At every shape of the papers, in one interleaved run a shape. Needs torch alone.
mmparc/analysis/benchmark_op.py says what is timed.
"""

import argparse

from mmparc import tool

KINDS = ('depthwise', 'dense')
MODES = ('inference', 'training')


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=KINDS)
    parser.add_argument('--modes', nargs='+', choices=MODES, default=MODES)
    parser.add_argument(
        '--shapes',
        nargs='+',
        metavar='BxCxHxW',
        help="these instead of the papers', with kernels as long as the map: 1x8x12x9",
    )
    parser.add_argument('--dtype', choices=['float32', 'bfloat16', 'float16'], default='float32')
    parser.add_argument('--cap', type=float, default=5.0, help='skip what takes so long (5 s)')
    tool.add_timing(parser, seconds=5.0)
    tool.add_out(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    from mmparc.analysis import benchmark_op

    benchmark_op.run(args)


if __name__ == '__main__':
    tool.run(make_parser(), main)
