"""Put ParC backbones into a config of each upstream family, and train each for three steps.

The steps are on generated batches on the CPU (trial.py), each model in a process of its own.
"""

import argparse
import copy
import csv
import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.utils import get_installed_path

from mmparc import engine
from mmparc.analysis import report
from mmparc.analysis.trial import take_steps
from mmparc.engine.config import TASKS
from mmparc.engine.errors import first_line
from mmparc.swap import plan_swap

TRAINS = 'trains'


def run(args: argparse.Namespace) -> None:
    """Write compatibility.csv and compatibility.md to ``args.out``."""
    table, page = args.out / 'compatibility.csv', args.out / 'compatibility.md'
    report.make_folder(args.out, [table.name, page.name], args.force or args.retry)
    torch.set_num_threads(1)
    known = read(table) if args.retry else {}
    rows = []
    configs = list(dict.fromkeys([*known, *args.configs])) or families()
    for config in report.track(configs, str):
        row = dict(config=config)
        for backbone in args.backbones:
            result = known.get(config, {}).get(backbone) or ''
            if not result.startswith(TRAINS):
                result = in_a_process(config, backbone, args.sizes, args.limit)
                print(f'{config} with {backbone}: {result}', flush=True)
            row[backbone] = result
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


def read(path: Path) -> dict[str, dict[str, str]]:
    """{config: row} of a list that was made before."""
    if not path.is_file():
        return {}
    lines = [line for line in path.read_text().splitlines() if not line.startswith('# ')]
    return {row['config']: row for row in csv.DictReader(lines)}


def families() -> list[str]:
    """One config of each upstream family that has full configs: that with the shortest name."""
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
    try:
        engine.load_config(config)
    except engine.UserError:
        return 'part'
    except Exception:  # upstream ships some that cannot be loaded
        return 'broken'
    return 'full'


def in_a_process(config: str, backbone: str, sizes: Sequence[int], limit: int) -> str:
    """The outcome, of a process that may die or take too long."""
    fork = multiprocessing.get_context('fork')
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=send_outcome, args=(sender, config, backbone, sizes))
    child.start()
    sender.close()
    try:
        if receiver.poll(limit):
            return receiver.recv()
        return f'no step: more than {limit} s'
    except EOFError:
        child.join()
        return f'no step: died (exit code {child.exitcode})'
    finally:
        child.kill()
        child.join()


def send_outcome(sender: Connection, *what: object) -> None:
    sys.stdout = sys.stderr = open(os.devnull, 'w')
    sender.send(outcome(*what))


def outcome(config: str, backbone: str, sizes: Sequence[int]) -> str:
    """'trains', or in one line why not."""
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


def step(cfg: Config, sizes: Sequence[int]) -> set[str] | str:
    """What ``take_steps`` returns for the first size that works, or the error at the last one."""
    for size in sizes:
        try:
            return take_steps(copy.deepcopy(cfg), (size, size))
        except Exception as error:  # upstream's models may raise anything
            cause = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    return cause
