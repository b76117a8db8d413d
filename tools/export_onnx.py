#!/usr/bin/env python
"""Export a model of the three tasks to ONNX, and compare it in onnxruntime with torch.

A classifier and a segmentor as far as their scores, a detector through backbone and neck; without
Fourier transforms. The file is written only if all outputs agree with torch's. See
docs/guide/export.md for what goes in and comes out.
"""

import argparse
import functools
import logging
import os
import statistics
from pathlib import Path

from mmparc import tool


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
    from mmparc import engine, export
    from mmparc.engine.config import config_path

    if args.out.exists():
        raise tool.UserError(f"'{args.out}' exists: name another file, or remove it")
    if args.out.suffix != '.onnx':
        raise tool.UserError(f"an exported model's name ends with .onnx, '{args.out}' does not")
    if min(*(args.shape or [1]), args.batch, args.multiple or 1) < 1:
        raise tool.UserError('--shape, --batch and --multiple take positive numbers')
    if args.multiple and not args.dynamic:
        raise tool.UserError('--multiple is for --dynamic: pass both')
    engine.check_checkpoint(args.checkpoint, 'to export')
    if args.plain:
        config_path(args.plain)
    export.require_packages()


def main(args: argparse.Namespace) -> None:
    import torch

    from mmparc import engine, export
    from mmparc.analysis.flops import input_size

    check(args)
    tool.quiet()
    logging.disable(logging.WARNING)  # torch's exporter
    torch.manual_seed(0)
    cfg = engine.load_config(args.config, args.cfg_options)
    engine.check_types(cfg)
    multiple = args.multiple or export.size_multiple(cfg)
    size = args.shape or [-(-side // multiple) * multiple for side in input_size(cfg)[0]]
    smallest = export.SMALLEST
    if args.dynamic and (min(size) < smallest or any(side % multiple for side in size)):
        raise tool.UserError(
            f'a dynamic size starts at {smallest} and here is a multiple of {multiple}: '
            f'pass such a --shape, got {size[0]} {size[1]}'
        )
    shape = args.batch, 3, *size
    part = args.out.with_name(f'.{args.out.name}.{os.getpid()}')
    try:
        network = export.Network(cfg, args.checkpoint, args.backbone)
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
        session = export.session_of(part)
        for images in export.shapes_to_check(shape, args.dynamic, multiple):
            verify(images, export.parity(session, network, images))
        os.replace(part, args.out)
        size, opset = args.out.stat().st_size / 1e6, proto.opset_import[0].version
        print(f'written: {args.out} ({size:.1f} MB, opset {opset})')
        if args.plain:
            plain = export.Network(engine.load_config(args.plain), 'none', args.backbone)
            export.export_onnx(plain, part, shape, opset=args.opset)
            sessions = {
                Path(args.config).stem: session,
                f'{Path(args.plain).stem}, plain': export.session_of(part),
            }
            compare(sessions, shape, args.seconds)
    finally:
        part.unlink(missing_ok=True)


def verify(shape: tuple[int, ...], errors: dict[str, float]) -> None:
    """Print the relative errors of all outputs; raise UserError if one is too large."""
    from mmparc.export import BOUND as bound

    images = ' x '.join(map(str, shape))
    shown = ', '.join(f'{name} {error:.1e}' for name, error in errors.items())
    print(f'images of {images}, largest relative errors: {shown}')
    if not all(error <= bound for error in errors.values()):  # NaN is too large
        raise tool.UserError(
            f'the exported model differs from torch by more than {bound} for images of {images}, '
            'so nothing is written: models that pad images to their patches, such as Swin and ViT, '
            'take --multiple 32 with --dynamic; others one size'
        )


def compare(sessions: dict[str, object], shape: tuple[int, ...], seconds: float) -> None:
    """Time two sessions in turn, and print both."""
    from mmparc import export
    from mmparc.analysis import timing

    images = export.images_of(shape).numpy()
    runs = {
        name: functools.partial(session.run, None, {export.IMAGES: images})
        for name, session in sessions.items()
    }
    times = timing.interleaved(runs, seconds=seconds, warmup=2)
    medians = {name: statistics.median(each) * 1e3 for name, each in times.items()}
    print(f'onnxruntime on {timing.machine()}; medians')
    print(*(f'{name}: {median:.2f} ms' for name, median in medians.items()), sep='\n')
    first, second = medians.values()
    print(f'ratio: {first / second:.2f}')


if __name__ == '__main__':
    tool.run(make_parser(), main)
