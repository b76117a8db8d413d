#!/usr/bin/env python
"""Write the table of classification models, ours beside the published ones, into configs/cls."""

import argparse

from mmparc import tool


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing; fail if it is stale')
    return parser


def main(args: argparse.Namespace) -> None:
    tool.quiet()
    from mmparc.analysis import model_table

    model_table.run(args)


if __name__ == '__main__':
    tool.run(make_parser(), main)
