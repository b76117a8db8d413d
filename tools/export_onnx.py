#!/usr/bin/env python
"""Export a model of the three tasks to ONNX, and compare it in onnxruntime with torch.

A classifier and a segmentor as far as their scores, a detector through backbone and neck; without
Fourier transforms. The file is written only if all outputs agree with torch's. See
docs/guide/export.md for what goes in and comes out.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from mmparc import tool

if TYPE_CHECKING:
    from mmengine.config import Config
    from rich.console import Console

    from mmparc import export


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tool.add_config_arguments(parser)
    parser.add_argument('checkpoint', help="a file, or 'none' for random weights")
    parser.add_argument('out', type=Path, help='the new file, .onnx')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="of the images; by default the config's own, as analysis/get_flops finds it",
    )
    parser.add_argument('--batch', type=int, default=1, metavar='B', help='images at a time (1)')
    parser.add_argument(
        '--dynamic',
        action='store_true',
        help='any batch, and any height and width from the smallest one on (docs/guide/export.md)',
    )
    parser.add_argument(
        '--multiple',
        type=int,
        metavar='M',
        help='of which these heights and widths are multiples; by default of what the config pads '
        'its images to, or of 1',
    )
    parser.add_argument('--backbone', action='store_true', help='the backbone alone')
    parser.add_argument('--opset', type=int, help="of ONNX; by default torch's choice")
    parser.add_argument(
        '--plain', metavar='CONFIG', help='also time it beside this model with random weights'
    )
    parser.add_argument('--seconds', type=float, default=5.0, help='to time for (5)')
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuse what cannot be done, before anything slow begins."""
    from mmparc import export
    from mmparc.engine.config import config_path

    if args.out.exists():
        raise tool.UserError(f"'{args.out}' exists: name another file, or remove it")
    if args.out.suffix != '.onnx':
        raise tool.UserError(f"an exported model's name ends with .onnx, '{args.out}' does not")
    if args.checkpoint != 'none' and '://' not in args.checkpoint:
        if not Path(args.checkpoint).is_file():
            raise tool.UserError(f"there is no checkpoint '{args.checkpoint}' to export")
    if min(*(args.shape or [1]), args.batch, args.multiple or 1) < 1:
        raise tool.UserError('--shape, --batch and --multiple take positive numbers')
    if args.plain:
        config_path(args.plain)
    if args.multiple and not args.dynamic:
        raise tool.UserError('--multiple is for --dynamic: pass both')
    export.require_packages()


def shape_of(args: argparse.Namespace, cfg: Config, multiple: int) -> export.Shape:
    from mmparc.analysis.flops import input_size
    from mmparc.export import SMALLEST

    size = tuple(args.shape or input_size(cfg)[0])
    if not args.shape:  # what images are padded to
        size = tuple(-(-side // multiple) * multiple for side in size)
    if args.dynamic and (min(size) < SMALLEST or any(side % multiple for side in size)):
        raise tool.UserError(
            f'a dynamic size starts at {SMALLEST} and here is a multiple of {multiple}: '
            f'pass such a --shape, got {size[0]} {size[1]}'
        )
    return args.batch, 3, *size


def verify(console: Console, errors: dict[export.Shape, dict[str, float]]) -> None:
    """Print the relative errors; raise UserError if one is above the bound, or no number."""
    from rich.table import Table

    from mmparc.export import BOUND as bound

    table = Table('images', 'largest relative error', 'in output')
    for shape, by_output in errors.items():
        worst = max(by_output, key=lambda name: (not by_output[name] <= bound, by_output[name]))
        table.add_row(' x '.join(map(str, shape)), f'{by_output[worst]:.1e}', worst)
    console.print(table)
    wrong = [s for s, found in errors.items() if not all(e <= bound for e in found.values())]
    if wrong:
        shapes = ', '.join(' x '.join(map(str, shape)) for shape in wrong)
        raise tool.UserError(
            f'the exported model differs from torch by more than {bound} for images of {shapes}, '
            'so nothing is written: models that pad images to their patches, such as Swin and ViT, '
            'take --multiple 32 with --dynamic; others one size'
        )


def main(args: argparse.Namespace) -> None:
    import torch
    from rich.console import Console

    from mmparc import engine, export

    check(args)
    tool.quiet()
    logging.disable(logging.WARNING)  # torch's exporter
    torch.manual_seed(0)
    cfg = engine.load_config(args.config, args.cfg_options)
    engine.check_model_types(cfg)
    engine.allow_mmengine_checkpoints()
    multiple = args.multiple or export.size_multiple(cfg)
    shape = shape_of(args, cfg, multiple)
    out, steps = Console(soft_wrap=True, markup=False), Console(stderr=True, markup=False)
    part = args.out.with_name(f'.{args.out.name}.{os.getpid()}')
    try:
        with steps.status('building the model') as status:
            network = export.Network(cfg, args.checkpoint, args.backbone)
            status.update('exporting')
            args.out.parent.mkdir(parents=True, exist_ok=True)
            proto = export.export_onnx(
                network,
                part,
                shape,
                dynamic=args.dynamic,
                multiple=multiple,
                opset=args.opset,
                metadata=export.metadata(cfg, args.config, args.checkpoint),
            )
            status.update('comparing with torch')
            session = export.session_of(part)
            shapes = export.shapes_to_check(shape, args.dynamic, multiple)
            verify(out, {shape: export.parity(session, network, shape) for shape in shapes})
            os.replace(part, args.out)
            size, opset = args.out.stat().st_size / 1e6, proto.opset_import[0].version
            out.print(f'written: {args.out} ({size:.1f} MB, opset {opset})')
            if args.plain:
                status.update(f'exporting {Path(args.plain).stem}, to compare the speed')
                plain = export.Network(engine.load_config(args.plain), 'none', args.backbone)
                export.export_onnx(plain, part, shape, opset=args.opset)
                sessions = {
                    Path(args.config).stem: session,
                    f'{Path(args.plain).stem}, plain': export.session_of(part),
                }
                compare(out, sessions, shape, args.seconds)
    finally:
        part.unlink(missing_ok=True)


def compare(
    console: Console, sessions: dict[str, object], shape: export.Shape, seconds: float
) -> None:
    """Time two sessions in turn, and print both."""
    import torch
    from rich.table import Table

    from mmparc import export
    from mmparc.analysis.timing import interleaved

    images = export.images_of(shape).numpy()
    runs = {
        name: functools.partial(session.run, None, {export.IMAGES: images})
        for name, session in sessions.items()
    }
    times = interleaved(runs, seconds=seconds, warmup=2)
    medians = {name: statistics.median(each) for name, each in times.items()}
    table = Table(f'onnxruntime, CPU, {torch.get_num_threads()} threads', 'ms, median')
    for name, median in medians.items():
        table.add_row(name, f'{median * 1e3:.2f}')
    first, second = medians.values()
    table.add_row('ratio', f'{first / second:.2f}')
    console.print(table)


if __name__ == '__main__':
    tool.run(make_parser(), main)
