#!/usr/bin/env python
"""Time whole backbones, ParC beside its plain twin, in inference and in training steps.

mmparc/analysis/benchmark_model.py says what is timed.
"""

import argparse

from mmparc import tool

TASKS = ('cls', 'det', 'seg')
MODES = ('inference', 'training')


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--models',
        nargs='+',
        default=['convnext-xt', 'resnet50'],
        metavar='NAME',
        help='files of configs/_base_/backbones (convnext-xt resnet50)',
    )
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=TASKS)
    parser.add_argument('--modes', nargs='+', choices=MODES, default=MODES)
    parser.add_argument(
        '--shapes', nargs='+', metavar='BxHxW', help="these images instead of the tasks': 2x64x96"
    )
    parser.add_argument(
        '--count', action='store_true', help='add the parameters and multiply-adds of both'
    )
    parser.add_argument('--channels-last', action='store_true', help='models and images')
    parser.add_argument('--amp', choices=['bfloat16', 'float16'], help='run under autocast')
    parser.add_argument('--compile', action='store_true', help='run torch.compile of the models')
    tool.add_timing(parser, seconds=20.0)
    tool.add_out(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    tool.quiet()
    from mmparc.analysis import benchmark_model

    benchmark_model.run(args)


if __name__ == '__main__':
    tool.run(make_parser(), main)
