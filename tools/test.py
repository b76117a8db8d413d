#!/usr/bin/env python
"""Evaluate a checkpoint of any config of the three tasks, and draw its predictions if asked to."""

import argparse
from pathlib import Path

from mmparc import tool


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tool.add_run_arguments(parser)
    parser.add_argument(
        'checkpoint', help="a file, or 'none' for the untrained model: the negative control"
    )
    parser.add_argument('--show-dir', help='draw the predictions into this directory')
    return parser


def main(args: argparse.Namespace) -> None:
    from mmengine.logging import print_log

    from mmparc import engine

    cfg = engine.config_of(args)
    if args.show_dir:
        engine.enable_drawing(cfg, args.show_dir)
    engine.runner_for_test(cfg, args.checkpoint).test()
    if args.show_dir:
        # Each task's visualizer chooses its own folder below this one.
        pictures = [p for p in Path(args.show_dir).rglob('*') if p.suffix in ('.png', '.jpg')]
        folders = ', '.join(sorted({str(p.parent) for p in pictures}))
        print_log(f'{len(pictures)} pictures in {folders or args.show_dir}', 'current')


if __name__ == '__main__':
    tool.run(make_parser(), main)
