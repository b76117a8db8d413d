#!/usr/bin/env python
"""Write a config that inherits another one and has a ParC backbone, or a ParC model's plain twin.

What follows from the backbone changes with it, each change under a comment that says why. The new
model is built and run once, and counted beside the original.
"""

import argparse
import os
import re
import warnings
from pathlib import Path

try:
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from rich.console import Console
    from rich.table import Table

    from mmparc import engine
    from mmparc.analysis.flops import Report, count_config
    from mmparc.engine.config import config_path
    from mmparc.engine.errors import first_line
    from mmparc.swap import Swap, backbone_names, config_text, plan_swap
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None


# mmengine knows upstream's packages alone, and no first folder such as gn+ws or legacy_1.x.
INHERITED_BY_NAME = re.compile(r'(mmpretrain|mmdet|mmseg)::\w+/')
COUNTED = ['fft']  # Fast-ParC; tools/analysis/get_flops.py counts the others too


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=f'backbones: {", ".join(backbone_names())}',
    )
    parser.add_argument('config', help='a path, or an upstream name such as mmdet::retinanet/...py')
    parser.add_argument('backbone', help='a name of those below')
    parser.add_argument(
        '-o', '--out', type=Path, metavar='NEW.py', help='the new config; by default it is printed'
    )
    parser.add_argument(
        '--pretrained',
        metavar='CKPT',
        help="start from this classifier's weights, with what the config freezes frozen; without "
        'it the backbone starts from random weights and nothing is frozen',
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="the image that both models are counted for; by default the config's own",
    )
    return parser.parse_args()


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    if args.out and args.out.exists():
        raise engine.UserError(f"'{args.out}' exists: name another with -o, or remove it")
    if args.out and args.out.suffix != '.py':
        raise engine.UserError(f"a config's name ends with .py, '{args.out}' does not")
    if args.shape and min(args.shape) < 1:
        raise engine.UserError(f'--shape takes two positive numbers, H W, got {args.shape}')
    warnings.simplefilter('ignore')  # upstream's constructors, of much that is no concern here
    MMLogger.get_current_instance().setLevel('ERROR')
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    cfg = engine.load_config(args.config)
    with console.status('looking at what the two backbones hand on'):
        swap = plan_swap(cfg, args.backbone, args.pretrained)
    with console.status('building and counting both models'):
        show(console, args, cfg, swap)
    title = f'{Path(args.config).stem} with {args.backbone}, by tools/swap_backbone.py.'
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        base = base_of(args.config, args.out.parent.resolve())
        args.out.write_text(config_text(swap, base, title))
        console.print(f'written: {args.out}')
    else:
        print(config_text(swap, base_of(args.config, Path.cwd()), title), end='')


def show(console: Console, args: argparse.Namespace, cfg: Config, swap: Swap) -> None:
    """Count the new model, which runs all of it once, and show it beside the original."""
    size = tuple(args.shape) if args.shape else None
    try:
        new = count_config(swap.cfg, size, COUNTED)
    except engine.UserError:
        raise
    except Exception as error:  # upstream's modules may raise anything
        raise engine.UserError(
            f'the model cannot take {args.backbone}: {first_line(error)} (when run on one image)'
        ) from error
    old = count_config(cfg, size, COUNTED)
    height, width = new.size
    table = Table(f'{height} x {width} image')
    for column in ('parameters', 'multiply-adds'):
        table.add_column(column, justify='right')
    add_rows(table, 'original', old)
    add_rows(table, args.backbone, new)
    console.print(table)


def add_rows(table: Table, name: str, report: Report) -> None:
    for backend, count in report.counts.items():
        label = f'{name} (ParC by {backend})' if backend else name
        table.add_row(label, f'{report.params:,}', f'{count.total / 1e9:,.3f} G')


def base_of(config: str, folder: Path) -> str:
    """What ``_base_`` calls a config in a file of this folder."""
    if INHERITED_BY_NAME.match(config):
        return config
    return os.path.relpath(config_path(config).resolve(), folder)


if __name__ == '__main__':
    main()
