#!/usr/bin/env python
"""Evaluate a checkpoint of any config of the three tasks, and draw its predictions if asked to."""

import argparse
from pathlib import Path

try:
    from mmengine.logging import print_log

    from mmparc import engine
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    engine.add_arguments(parser)
    parser.add_argument(
        'checkpoint', help="a file, or 'none' for the untrained model: the negative control"
    )
    parser.add_argument('--show-dir', help='draw the predictions into this directory')
    return parser.parse_args()


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    cfg = engine.config_of(args)
    if args.show_dir:
        engine.enable_drawing(cfg, args.show_dir)
    runner = engine.runner_for_test(cfg, args.checkpoint)
    runner.test()
    if args.show_dir:
        # Each task's visualizer chooses its own folder below the one that was asked for.
        pictures = [p for p in Path(args.show_dir).rglob('*') if p.suffix in ('.png', '.jpg')]
        folders = ', '.join(sorted({str(p.parent) for p in pictures}))
        print_log(f'{len(pictures)} pictures in {folders or args.show_dir}', 'current')


if __name__ == '__main__':
    main()
