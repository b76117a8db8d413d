#!/usr/bin/env python
"""Write a config that inherits another one and has a ParC backbone, or a ParC model's plain twin.

What follows from the backbone changes with it, each change under a comment that says why. The new
model is built and run once, and counted beside the original.
"""

import argparse
import os
import re
import sys
from pathlib import Path

from mmparc import tool

# mmengine knows upstream's packages alone, and no first folder such as gn+ws or legacy_1.x.
INHERITED_BY_NAME = re.compile(r'(mmpretrain|mmdet|mmseg)::\w+/')
COUNTED = ['fft']  # Fast-ParC; tools/analysis/get_flops.py counts the others too


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='a path, or an upstream name such as mmdet::retinanet/...py')
    parser.add_argument(
        'backbone',
        help='a file of configs/_base_/backbones, such as resnet50; parc-resnet50 is its ParC twin',
    )
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
    return parser


def main(args: argparse.Namespace) -> None:
    from mmparc import engine
    from mmparc.analysis.flops import count_config
    from mmparc.analysis.report import markdown
    from mmparc.engine.errors import first_line
    from mmparc.swap import config_text, plan_swap

    if args.out and args.out.exists():
        raise tool.UserError(f"'{args.out}' exists: name another with -o, or remove it")
    if args.out and args.out.suffix != '.py':
        raise tool.UserError(f"a config's name ends with .py, '{args.out}' does not")
    if args.shape and min(args.shape) < 1:
        raise tool.UserError(f'--shape takes two positive numbers, H W, got {args.shape}')
    tool.quiet()
    cfg = engine.load_config(args.config)
    swap = plan_swap(cfg, args.backbone, args.pretrained)
    size = tuple(args.shape) if args.shape else None
    try:
        new = count_config(swap.cfg, size, COUNTED)  # runs all of it once
    except engine.UserError:
        raise
    except Exception as error:  # upstream's modules may raise anything
        raise engine.UserError(
            f'the model cannot take {args.backbone}: {first_line(error)} (when run on one image)'
        ) from error
    rows = []
    for name, report in (('original', count_config(cfg, size, COUNTED)), (args.backbone, new)):
        for backend, count in report.counts.items():
            label = f'{name} (ParC by {backend})' if backend else name
            rows.append([label, f'{report.params:,}', f'{count.total / 1e9:,.3f} G'])
    header = ['{} x {} image'.format(*new.size), 'parameters', 'multiply-adds']
    print(markdown(header, rows, 1), file=sys.stderr)

    base = base_of(args.config, args.out.parent.resolve() if args.out else Path.cwd())
    title = f'{Path(args.config).stem} with {args.backbone}, by tools/swap_backbone.py.'
    text = config_text(swap, base, title)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)
        print(f'written: {args.out}', file=sys.stderr)
    else:
        print(text, end='')


def base_of(config: str, folder: Path) -> str:
    """What ``_base_`` calls a config in a file of this folder."""
    from mmparc.engine.config import config_path

    if INHERITED_BY_NAME.match(config):
        return config
    return os.path.relpath(config_path(config).resolve(), folder)


if __name__ == '__main__':
    tool.run(make_parser(), main)
