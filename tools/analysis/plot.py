#!/usr/bin/env python
"""Draw figures of models: kernels, accuracy against size, predictions, receptive fields, curves.

Most take CONFIG CKPT pairs of any of the three tasks; 'none' in place of a checkpoint is the same
model with random weights, the control. docs/guide/figures.md shows each.
"""

import argparse
import importlib
from pathlib import Path

from mmparc import tool

CHECKPOINT = "a file, or 'none' for random weights"
FIGURES = {
    'kernels': 'the kernels and position embeddings that ParC layers have learned',
    'sizes': 'accuracy against the size of the input, by the rule that resizes kernels',
    'predictions': 'what two models predict on the same images, beside the annotation',
    'erf': 'effective receptive fields, plain beside ParC',
    'curves': "a run's losses, learning rate and validation metrics",
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='figure', required=True, metavar='FIGURE')
    made = {
        name: commands.add_parser(name, help=help, description=help)
        for name, help in FIGURES.items()
    }

    kernels = made['kernels']
    tool.add_config_arguments(kernels)
    kernels.add_argument('checkpoint', help=CHECKPOINT)
    tool.add_out(kernels, 'work_dirs/kernels')

    sizes = made['sizes']
    sizes.add_argument('pairs', nargs='+', metavar='CONFIG CKPT', help='repeatable')
    sizes.add_argument(
        '--sizes', type=int, nargs='+', metavar='N', help='in pixels; default: a handful'
    )
    sizes.add_argument(
        '--metric', help="a key of the test's metrics; default: top-1 accuracy, box AP or mIoU"
    )
    tool.add_out(sizes, 'work_dirs/sizes')
    tool.add_cfg_options(sizes)

    predictions = made['predictions']
    for which in 'ab':
        predictions.add_argument(f'config_{which}', metavar=f'CONFIG_{which.upper()}')
        predictions.add_argument(
            f'checkpoint_{which}', metavar=f'CKPT_{which.upper()}', help=CHECKPOINT
        )
    predictions.add_argument('--num', type=int, default=8, help='number of images (8)')
    predictions.add_argument(
        '--every', type=int, default=1, metavar='N', help='only each N-th image of the test set (1)'
    )
    predictions.add_argument(
        '--only-differing',
        nargs='?',
        type=float,
        const=0.0,
        metavar='SHARE',
        help='only images where the two predict another class, or where more than this share of '
        'pixels or boxes differ (0)',
    )
    predictions.add_argument('--score', type=float, default=0.3, help='least score of boxes (0.3)')
    tool.add_out(predictions, 'work_dirs/predictions')
    tool.add_cfg_options(predictions)

    erf = made['erf']
    erf.add_argument(
        'names',
        nargs='*',
        metavar='NAME',
        help='backbones with random weights, each beside its twin; default: all of '
        'configs/_base_/backbones',
    )
    erf.add_argument(
        '--config',
        nargs=2,
        action='append',
        metavar=('CONFIG', 'CKPT'),
        help="instead of names, and repeatable: the backbone of a config's model. Two in a row "
        'stand beside each other',
    )
    erf.add_argument(
        '--shape', type=int, nargs=2, metavar=('H', 'W'), default=[224, 224], help='(224 224)'
    )
    erf.add_argument('--inputs', type=int, default=8, metavar='N', help='number of images (8)')
    erf.add_argument(
        '--images',
        type=Path,
        metavar='DIR',
        help='jpg and png in this folder and below, resized; default: noise',
    )
    tool.add_seed(erf, 'of noise and random weights')
    tool.add_out(erf, 'work_dirs/erf')

    curves = made['curves']
    curves.add_argument('work_dir', type=Path, help="a run's directory")
    curves.add_argument('--out', type=Path, help='the picture (WORK_DIR/curves.png)')
    return parser


def main(args: argparse.Namespace) -> None:
    tool.quiet()
    importlib.import_module(f'mmparc.analysis.{args.figure}').run(args)


if __name__ == '__main__':
    tool.run(make_parser(), main)
