#!/usr/bin/env python
"""Put ParC backbones into a config of each upstream family, and train each for three steps.

Writes the outcomes to DIR/compatibility.csv and DIR/compatibility.md.
"""

import argparse

from mmparc import tool


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'configs',
        nargs='*',
        metavar='CONFIG',
        help='upstream names or paths; by default the config with the shortest name of each family',
    )
    parser.add_argument('--backbones', nargs='+', default=['parc-convnext-xt'], metavar='NAME')
    tool.add_out(parser, 'work_dirs/compatibility')
    parser.add_argument(
        '--retry',
        action='store_true',
        help="go on with --out's list: keep what trained, try the rest and CONFIGs again",
    )
    parser.add_argument(
        '--sizes',
        type=int,
        nargs='+',
        default=[96, 224, 320],
        help='of square images; the next one where no step succeeds on the one before (96 224 320)',
    )
    parser.add_argument('--limit', type=int, default=600, help='seconds for each model (600)')
    return parser


def main(args: argparse.Namespace) -> None:
    tool.quiet()
    from mmparc.analysis import try_upstream

    try_upstream.run(args)


if __name__ == '__main__':
    tool.run(make_parser(), main)
