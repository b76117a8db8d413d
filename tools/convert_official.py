#!/usr/bin/env python
"""Convert a checkpoint of the authors' published code to an mmpretrain classifier's, and back.

Writes {'state_dict', 'meta'} and prints the backbone's config, which goes into any config of the
three tasks.
"""

import argparse
from pathlib import Path

import mmparc
from mmparc import tool

# where checkpoints keep their weights, if they hold anything else
KEYS = ('model', 'state_dict', 'model_ema')
# of mmparc.converters
FAMILIES = ('parc_convnext', 'parc_resnet', 'parc_mobilenetv2', 'parcnet')


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', choices=FAMILIES)
    parser.add_argument('input', type=Path, metavar='IN', help='the checkpoint to read')
    parser.add_argument('output', type=Path, metavar='OUT', help='the checkpoint to write')
    parser.add_argument(
        '--to-official',
        action='store_true',
        help="from a classifier's checkpoint to one for the published code",
    )
    parser.add_argument(
        '--key', help=f'where in IN the weights lie, if more than one of {", ".join(KEYS)} is there'
    )
    return parser


def load(path: Path, key: str | None) -> dict:
    """The state dict in a checkpoint, which may be all of it or lie under one of its keys."""
    from mmparc import engine

    if not path.is_file():
        raise tool.UserError(f"there is no checkpoint '{path}'")
    engine.allow_mmengine_checkpoints(argparse.Namespace)  # a training script's arguments
    checkpoint = engine.load_weights_only(path)
    if not isinstance(checkpoint, dict):
        raise tool.UserError(f"'{path}' holds no state dict but a {type(checkpoint).__name__}")
    found = [key] if key else [k for k in KEYS if isinstance(checkpoint.get(k), dict)]
    if len(found) > 1:
        raise tool.UserError(f"'{path}' has weights under {', '.join(found)}: choose with --key")
    if not found:
        return checkpoint
    if not isinstance(checkpoint.get(found[0]), dict):
        raise tool.UserError(f"'{path}' has no weights under '{key}', only {list(checkpoint)}")
    return checkpoint[found[0]]


def main(args: argparse.Namespace) -> None:
    import torch

    from mmparc import converters

    if args.output.exists():
        raise tool.UserError(f"'{args.output}' is there already: remove it or name another")
    if not args.output.parent.is_dir():
        raise tool.UserError(f"there is no folder '{args.output.parent}': make it first")
    state_dict = load(args.input, args.key)
    meta = dict(mmparc_version=mmparc.__version__, model=args.model, source=args.input.name)
    try:
        if args.to_official:
            converted = converters.convert_to_official(state_dict, args.model)
        else:
            converted = converters.convert_official(state_dict, args.model)
            meta['backbone'] = converters.backbone_config(state_dict, args.model)
    except ValueError as error:
        raise tool.UserError(f'{args.input}: {error}') from None
    torch.save(dict(state_dict=converted, meta=meta), args.output)
    print(f'{len(converted)} tensors in {args.output}')
    if 'backbone' in meta:
        settings = ', '.join(f'{key}={value!r}' for key, value in meta['backbone'].items())
        print(f'backbone=dict({settings})')


if __name__ == '__main__':
    tool.run(make_parser(), main)
