#!/usr/bin/env python
"""Put ParC backbones into a config of each upstream family, and train each for three steps.

Writes what comes of it to DIR/compatibility.csv and DIR/compatibility.md. The steps are on
generated batches on the CPU (mmparc/analysis/trial.py), each model in a process of its own.
"""

import argparse
import copy
import csv
import multiprocessing
import os
import shlex
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

try:
    import torch
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.utils import get_installed_path

    from mmparc import engine
    from mmparc.analysis import report
    from mmparc.analysis.trial import take_steps
    from mmparc.engine.config import TASKS
    from mmparc.engine.errors import first_line
    from mmparc.swap import plan_swap
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None

TRAINS = 'trains'
NAMES = ['compatibility.csv', 'compatibility.md']


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'configs',
        nargs='*',
        metavar='CONFIG',
        help='upstream names or paths; by default the config with the shortest name of each family',
    )
    parser.add_argument('--backbones', nargs='+', default=['parc-convnext-xt'], metavar='NAME')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/compatibility'), metavar='DIR')
    parser.add_argument('--force', action='store_true', help='overwrite what is in --out')
    parser.add_argument(
        '--retry',
        action='store_true',
        help="go on with --out's list: keep what trained, try the rest and CONFIGs anew",
    )
    parser.add_argument(
        '--sizes',
        type=int,
        nargs='+',
        default=[96, 224, 320],
        help='of square images; the next one where no step succeeds on the one before (96 224 320)',
    )
    parser.add_argument('--limit', type=int, default=600, help='seconds for each model (600)')
    return parser.parse_args()


def state_of(config: str) -> str:
    """'full', 'broken' if it does not load, 'part' if it is of no task or has no model."""
    try:
        engine.load_config(config)
    except engine.UserError:
        return 'part'
    except Exception:  # upstream ships some that cannot be loaded
        return 'broken'
    return 'full'


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
            said = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    return said


def in_a_process(config: str, backbone: str, sizes: Sequence[int], limit: int) -> str:
    """The outcome, of a process that may die or take too long."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        with open(os.devnull, 'w') as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        signal.alarm(limit)
        try:
            sender.send(outcome(config, backbone, sizes))
        finally:  # or a failure would go on as if it were the parent
            os._exit(0)
    sender.close()
    try:
        said = receiver.recv()
    except EOFError:
        said = None
    _, status = os.waitpid(child, 0)
    if said is None:
        late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        return f'no step: more than {limit} s' if late else f'no step: died (status {status})'
    return said


def read(path: Path) -> dict[str, dict[str, str]]:
    """{config: row} of a list that was made before."""
    if not path.is_file():
        return {}
    lines = [line for line in path.read_text().splitlines() if not line.startswith('# ')]
    return {row['config']: row for row in csv.DictReader(lines)}


def table(rows: Sequence[dict], backbones: Sequence[str]) -> str:
    """What trains, by package, and below it what does not and why."""
    parts = []
    for package in dict.fromkeys(row['config'].partition('::')[0] for row in rows):
        own = [row for row in rows if row['config'].partition('::')[0] == package]
        cells = [[row['config'], *(row[name] for name in backbones)] for row in own]
        parts.append(
            f'## {package}\n\n' + report.markdown(['config', *backbones], cells, 1 + len(backbones))
        )
    return '\n\n'.join(parts) + '\n'


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    try:
        report.make_folder(args.out, NAMES, args.force or args.retry)
    except FileExistsError as error:
        raise engine.UserError(str(error)) from None
    warnings.simplefilter('ignore')  # upstream's constructors
    MMLogger.get_current_instance().setLevel('ERROR')
    torch.set_num_threads(1)
    known = read(args.out / NAMES[0]) if args.retry else {}
    rows = []
    configs = list(dict.fromkeys([*known, *args.configs])) or families()
    for config in report.track(configs, str):
        row = dict(config=config)
        for backbone in args.backbones:
            said = known.get(config, {}).get(backbone) or ''
            if not said.startswith(TRAINS):
                said = in_a_process(config, backbone, args.sizes, args.limit)
                print(f'{config} with {backbone}: {said}', flush=True)
            row[backbone] = said
        rows.append(row)
    command = shlex.join(['tools/analysis/try_upstream.py', *sys.argv[1:]])
    report.write_csv(args.out / NAMES[0], [f'command: {command}'], rows)
    counts = {
        name: Counter(row[name].startswith(TRAINS) for row in rows)[True] for name in args.backbones
    }
    head = f'- command: {command}\n' + ''.join(
        f'- {name}: {count} of {len(rows)} train\n' for name, count in counts.items()
    )
    (args.out / NAMES[1]).write_text(
        f'# Upstream families\n\n{head}\n{table(rows, args.backbones)}'
    )
    print(head, args.out / NAMES[0], args.out / NAMES[1], sep='\n')


if __name__ == '__main__':
    main()
