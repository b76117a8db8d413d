#!/usr/bin/env python
"""Time mmparc's NMS and RoIAlign beside those of a compiled mmcv, at sizes of COCO detectors.

It runs where a compiled mmcv is installed, and prints Markdown.
"""

import argparse

from mmparc import tool


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=5.0, help='for each row (5)')
    return parser


def main(args: argparse.Namespace) -> None:
    from mmparc.analysis import benchmark_mmcv_ops

    benchmark_mmcv_ops.run(args)


if __name__ == '__main__':
    tool.run(make_parser(), main)
