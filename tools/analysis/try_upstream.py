#!/usr/bin/env python
"""Put ParC backbones into a config of each upstream family, and train each for three steps.

The steps are on generated batches on the CPU (mmparc/analysis/trial.py), each model in a process
of its own. Writes the outcomes to DIR/compatibility.csv and DIR/compatibility.md.
"""

import argparse
import copy
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mmparc import tool

TRAINS = 'trains'
LIMIT = 600  # seconds for each model


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'configs',
        nargs='*',
        metavar='CONFIG',
        help='upstream names or paths; by default the config with the shortest name of each family',
    )
    parser.add_argument('--backbones', nargs='+', default=['parc-convnext-xt'], metavar='NAME')
    parser.add_argument(
        '--sizes',
        type=int,
        nargs='+',
        default=[96, 224, 320],
        help='of square images; the next one where no step succeeds on the one before (96 224 320)',
    )
    tool.add_out(parser, 'work_dirs/compatibility')
    return parser


def main(args: argparse.Namespace) -> None:
    tool.quiet()
    import torch

    from mmparc.analysis import report

    names = ['compatibility.csv', 'compatibility.md']
    table, page = report.make_folder(args.out, names, args.force)
    torch.set_num_threads(1)
    rows = []
    for config in report.track(args.configs or families()):
        row = dict(config=config)
        for backbone in args.backbones:
            row[backbone] = in_a_process(config, backbone, args.sizes)
            print(f'{config} with {backbone}: {row[backbone]}', flush=True)
        rows.append(row)
    report.write_csv(table, [report.command()], rows)
    counts = [
        f'{name}: {sum(row[name].startswith(TRAINS) for row in rows)} of {len(rows)} train'
        for name in args.backbones
    ]
    parts = []
    for package in dict.fromkeys(row['config'].partition('::')[0] for row in rows):
        own = [[*row.values()] for row in rows if row['config'].partition('::')[0] == package]
        cells = report.markdown(['config', *args.backbones], own, 1 + len(args.backbones))
        parts.append(f'## {package}\n\n{cells}\n')
    report.write_page(page, 'Upstream families', [report.command(), *counts], '\n'.join(parts))
    print(*counts, table, page, sep='\n')


def families() -> list[str]:
    """One config of each upstream family that has full configs: that with the shortest name."""
    from mmengine.utils import get_installed_path

    from mmparc.engine.config import TASKS

    found = []
    for package in TASKS:
        root = Path(get_installed_path(package), '.mim', 'configs')
        for folder in sorted(path for path in root.iterdir() if path.name[0] != '_'):
            names = [path.relative_to(root).as_posix() for path in folder.rglob('*.py')]
            names = [f'{package}::{n}' for n in sorted(names, key=lambda name: (len(name), name))]
            states: dict[str, str] = {}  # {state: the first config in it}
            for name in names:
                states.setdefault(state_of(name), name)
                if 'full' in states:
                    break
            if states.keys() & {'full', 'broken'}:
                found.append(states.get('full') or states['broken'])
    return found


def state_of(config: str) -> str:
    """'full', 'broken' if it does not load, 'part' if it is of no task or has no model."""
    from mmparc import engine

    try:
        engine.load_config(config)
    except engine.UserError:
        return 'part'
    except Exception:  # upstream ships some that cannot be loaded
        return 'broken'
    return 'full'


def in_a_process(config: str, backbone: str, sizes: Sequence[int]) -> str:
    """The outcome, of a process that may die or take too long."""
    fork = multiprocessing.get_context('fork')
    receiver, sender = fork.Pipe(duplex=False)

    def send_outcome() -> None:
        sys.stdout = sys.stderr = open(os.devnull, 'w')
        sender.send(outcome(config, backbone, sizes))

    child = fork.Process(target=send_outcome)
    child.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(LIMIT) else f'no step: more than {LIMIT} s'
    except EOFError:
        child.join()
        return f'no step: died (exit code {child.exitcode})'
    finally:
        child.kill()
        child.join()


def outcome(config: str, backbone: str, sizes: Sequence[int]) -> str:
    """'trains', or in one line why not."""
    from mmparc import engine
    from mmparc.engine.errors import first_line
    from mmparc.swap import plan_swap

    try:
        swap = plan_swap(engine.load_config(config), backbone)
    except engine.UserError as error:
        return f'refused: {error}'
    except Exception as error:  # of loading alone
        return f'no config: {first_line(error)}'
    prefix = '.'.join([*swap.key[1:], 'backbone', ''])
    behind = {prefix + name for name in swap.new.unused}
    still = step(swap.cfg, sizes)
    if isinstance(still, str):
        own = isinstance(step(engine.load_config(config), sizes), str)
        return f'no step{", with its own backbone neither" * own}: {still}'
    if still - behind:
        return f'no gradient: {", ".join(sorted(still - behind)[:3])}'
    layers = {name.rpartition('.')[0] for name in still}
    return f'{TRAINS}, without {len(layers)} layers behind its outputs' if layers else TRAINS


def step(cfg, sizes: Sequence[int]) -> set[str] | str:
    """What ``take_steps`` returns for the first size that works, or the error at the last one."""
    from mmparc.analysis.trial import take_steps

    for size in sizes:
        try:
            return take_steps(copy.deepcopy(cfg), (size, size))
        except Exception as error:  # upstream's models may raise anything
            cause = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    return cause


if __name__ == '__main__':
    tool.run(make_parser(), main)
