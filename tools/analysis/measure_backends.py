#!/usr/bin/env python
"""Measure which backend of ParC is the fastest here, by the kernel's length, into a table.

The path of the table then stands in the place of backend='auto'. mmparc's own, the 'auto' of
everyone, is written by this too, with --out mmparc/ops/auto_table.json --force. What this machine
cannot measure (a GPU, on one without) is taken over from that one. Needs torch alone.
"""

import argparse

from mmparc import tool


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--lengths', type=int, nargs='+', metavar='N', help='default: 4 to 512')
    tool.add_timing(parser, seconds=0.3)
    tool.add_out(parser, 'work_dirs/backends.json', 'the table')
    return parser


def main(args: argparse.Namespace) -> None:
    from mmparc.analysis import measure_backends

    measure_backends.run(args)


if __name__ == '__main__':
    tool.run(make_parser(), main)
