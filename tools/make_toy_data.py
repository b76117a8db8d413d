#!/usr/bin/env python
"""Makes the small data sets: `tools/make_toy_data.py [--out data/toy] [--tasks cls det seg]`.

Writes `<out>/cls` as ImageNet, `<out>/det` as COCO and `<out>/seg` as ADE20K lay out their files,
each with a `preview.png` to look at. What is already there is left as it is.
"""

import argparse
import signal
from functools import partial
from pathlib import Path

from mmparc import tool

# of mmparc.datasets
TASKS = ('cls', 'det', 'seg')
SCENES = ('shapes', 'relations')
DIFFICULTIES = ('easy', 'normal', 'hard')


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0] + '.')
    parser.add_argument('--out', type=Path, default=Path('data/toy'), help='default: data/toy')
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=TASKS, metavar='TASK')
    parser.add_argument('--scenes', choices=SCENES, default='shapes', help='default: shapes')
    tool.add_seed(parser)
    parser.add_argument('--difficulty', choices=DIFFICULTIES, default='normal')
    parser.add_argument('--train', type=int, metavar='N', help='training images; default: by task')
    parser.add_argument('--val', type=int, metavar='N', help='validation images; default: by task')
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('H', 'W'), help='pixels; default: by task'
    )
    return parser


def main(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from mmparc.datasets import DEFAULTS, holds_toy_data, make_toy_data

    if args.out.exists() and not args.out.is_dir():
        raise tool.UserError(f"'{args.out}' is a file: pass another --out")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as for Ctrl-C
    names = ('scenes', 'seed', 'difficulty', 'train', 'val', 'size')
    settings = {name: getattr(args, name) for name in names}
    try:
        missing = [task for task in args.tasks if not holds_toy_data(args.out, task, **settings)]
        with Progress(console=Console(stderr=True), disable=not missing) as progress:
            for task in missing:
                total = (args.train or DEFAULTS[task].train) + (args.val or DEFAULTS[task].val)
                bar = progress.add_task(task, total=total)
                on_image = partial(progress.advance, bar)
                make_toy_data(args.out, task, **settings, on_image=on_image)
    except (ValueError, OSError) as error:
        raise tool.UserError(str(error)) from None
    except KeyboardInterrupt:
        raise tool.UserError('interrupted; what was not complete is gone') from None
    for task in args.tasks:
        folder = args.out / task
        state = 'made' if task in missing else 'already there'
        print(f'{task}: {state} in {folder}, see {folder / "preview.png"}')


if __name__ == '__main__':
    tool.run(make_parser(), main)
