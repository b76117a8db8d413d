#!/usr/bin/env python
"""Export a model of the three tasks to ONNX, check it in onnxruntime against torch, and time it.

A classifier and a segmentor as far as their scores, a detector through backbone and neck; without
Fourier transforms. The file is written only if all outputs agree with torch's. See
docs/guide/export.md for what goes in and comes out.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import statistics
import tempfile
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
    twin = parser.add_mutually_exclusive_group()
    twin.add_argument(
        '--plain',
        metavar='CONFIG',
        help="what the speed is compared with, with random weights; by default the config's only "
        'base, for a model with ParC',
    )
    twin.add_argument('--no-plain', action='store_true', help='do not compare the speed')
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


def twin_of(args: argparse.Namespace, network: export.Network) -> str | None:
    """The config to compare the speed with, if there is one."""
    from mmparc.engine.config import config_path
    from mmparc.export import plain_twin

    if args.plain or args.no_plain or not network.has_parc:
        return args.plain
    twin = plain_twin(config_path(args.config))
    return str(twin) if twin else None


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
    with tempfile.TemporaryDirectory() as folder, steps.status('building the model') as status:
        network = export.Network(cfg, args.checkpoint, args.backbone)
        path = Path(folder, 'model.onnx')
        status.update('exporting')
        proto = export.export_onnx(
            network,
            path,
            shape,
            dynamic=args.dynamic,
            multiple=multiple,
            opset=args.opset,
            metadata=export.metadata(cfg, network, args.config, args.checkpoint),
        )
        status.update('comparing with torch')
        session = export.session_of(path)
        shapes = export.shapes_to_check(shape, args.dynamic, multiple)
        errors = {checked: export.parity(session, network, checked) for checked in shapes}
        verify(out, errors)
        keep(path, args.out)
        size, opset = args.out.stat().st_size / 1e6, proto.opset_import[0].version
        out.print(f'written: {args.out} ({size:.1f} MB, opset {opset})')
        if twin := twin_of(args, network):
            status.update(f'exporting {Path(twin).stem}, to compare the speed')
            compare(out, args, twin, session, shape, Path(folder))


def compare(
    console: Console,
    args: argparse.Namespace,
    twin: str,
    session: object,
    shape: export.Shape,
    folder: Path,
) -> None:
    """Time a session beside the plain twin's, which is of this very size, and print both."""
    import torch
    from rich.table import Table

    from mmparc import engine, export
    from mmparc.analysis.timing import interleaved

    plain = export.Network(engine.load_config(twin), 'none', args.backbone)
    export.export_onnx(plain, folder / 'plain.onnx', shape, opset=args.opset)
    plain_session = export.session_of(folder / 'plain.onnx')
    sessions = {Path(args.config).stem: session, f'{Path(twin).stem}, plain': plain_session}
    times = interleaved(
        {name: export.runner(each, shape) for name, each in sessions.items()},
        seconds=args.seconds,
        warmup=2,
    )
    first, second = medians = [statistics.median(each) for each in times.values()]
    rounds = len(next(iter(times.values())))
    table = Table(f'onnxruntime, CPU, {torch.get_num_threads()} threads')
    table.add_column(f'ms, median of {rounds}', justify='right')
    for name, median in zip(times, medians, strict=True):
        table.add_row(name, f'{median * 1e3:.2f}')
    table.add_row('ratio', f'{first / second:.2f}')
    console.print(table)


def keep(made: Path, out: Path) -> None:
    """Move a file to where it was asked for, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f'.{out.name}.{os.getpid()}')
    try:
        shutil.copyfile(made, part)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)


if __name__ == '__main__':
    tool.run(make_parser(), main)
