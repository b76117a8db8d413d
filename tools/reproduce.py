#!/usr/bin/env python
"""Run, or submit to slurm, what a table of configs/tables needs, in the right order.

What is done is skipped, what was cut off goes on from its last checkpoint, and nothing that exists
is started over: the same command again completes a table.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    import torch

    from mmparc import engine
    from mmparc.tables import Table, load_table
    from mmparc.tables.jobs import (
        Job,
        is_locked,
        make_jobs,
        script,
        select_rows,
        shown,
        train_command,
    )
    from mmparc.tables.local import Runner
    from mmparc.tables.slurm import job_name, queued, submission, submit
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('table', help='a name such as detection, or a .yaml file of that form')
    parser.add_argument('--rows', nargs='+', metavar='NAME', help='these rows of it alone')
    parser.add_argument(
        '--work-dirs', type=Path, default=Path('work_dirs'), help='where runs go (work_dirs)'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none')
    parser.add_argument(
        '--gpus',
        type=int,
        metavar='N',
        help="of a run, on all its machines; default: pytorch: those here, slurm: the config's",
    )
    parser.add_argument(
        '--jobs', type=int, default=1, metavar='N', help='runs at once on this machine (1)'
    )
    parser.add_argument('--partition', help='of slurm')
    parser.add_argument('--dry-run', action='store_true', help='say what would run, in order')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=engine.DictAction,
        default={},
        metavar='KEY=VALUE',
        help='override config entries in all runs',
    )
    return parser.parse_args()


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    nodes, node = machines(args)
    try:
        table = load_table(args.table)
        rows = select_rows(table, args.rows)
        jobs = make_jobs(rows, args.table, args.work_dirs, args.cfg_options)
        set_gpus(jobs, 1 if args.launcher == 'none' else args.gpus)
        states = {job: job.state().name for job in jobs}
        if args.dry_run:
            show(table, jobs, states, args, nodes)
            return
        todo = [job for job in jobs if states[job] != 'done']
        for job in todo:
            if job.remark():
                print(f'{job.label}: {job.remark()}')
        if todo and node == 0:
            make_data(table)
        if args.launcher == 'slurm':
            submit(jobs, args.partition)
            return
    except ValueError as error:
        raise engine.UserError(str(error)) from None
    for job in todo:
        engine.check_data(job.cfg, 'train_dataloader', 'val_dataloader')
    runner = Runner(lambda job: train_command(job, args.launcher, nodes), args.jobs, node)
    try:
        outcomes = runner.run(jobs)
    except KeyboardInterrupt:
        print('stopped: the same command goes on from the last checkpoints', file=sys.stderr)
        sys.exit(130)
    missing = [job for job, why in outcomes.items() if why]
    print(f'{table.name}: {len(jobs) - len(missing)} of {len(jobs)} runs are done')
    if missing:
        sys.exit(1)


def machines(args: argparse.Namespace) -> tuple[int, int]:
    """How many take part, and the number of this one; see tools/dist_train.sh.

    With torchrun it counts the GPUs, where their number is not given.

    Raises:
        UserError: if arguments do not go together, or there is no GPU.
    """
    if args.jobs < 1 or (args.gpus is not None and args.gpus < 1):
        raise engine.UserError('--jobs and --gpus must be at least 1')
    if args.jobs > 1 and args.launcher != 'none':
        raise engine.UserError('--jobs is for --launcher none: leave it out')
    if args.launcher == 'none' and args.gpus not in (None, 1):
        raise engine.UserError('--gpus needs --launcher pytorch or slurm')
    if (args.launcher == 'slurm') != (args.partition is not None):
        raise engine.UserError('--launcher slurm and --partition NAME go together')
    if args.launcher != 'pytorch':
        return 1, 0
    nodes = int(os.environ.get('NNODES', 1))
    if args.gpus is None:
        args.gpus = torch.cuda.device_count() * nodes
    if not args.gpus:
        raise engine.UserError('--launcher pytorch finds no GPU here: pass --gpus N')
    if args.gpus % nodes:
        raise engine.UserError(f'--gpus {args.gpus} is no multiple of the {nodes} machines')
    return nodes, int(os.environ.get('NODE_RANK', 0))


def set_gpus(jobs: Sequence[Job], gpus: int | None) -> None:
    """Say of each run on how many GPUs it is made; None: as many as make its row's batch.

    Raises:
        UserError: if no number does.
    """
    for job in jobs:
        job.gpus = gpus or job.batch // job.images_per_gpu
        if not gpus and job.gpus * job.images_per_gpu != job.batch:
            raise engine.UserError(
                f'{job.label}: a batch of {job.batch} is no multiple of {job.images_per_gpu} '
                'images a GPU: pass --gpus N'
            )


def make_data(table: Table) -> None:
    """Make what the table is trained on, as far as it is not there.

    Raises:
        UserError: if that fails.
    """
    for command in data_commands(table):
        status = subprocess.run(command).returncode
        if status != 0:
            raise engine.UserError(f'exit status {status} from {shown(command)}')


def data_commands(table: Table) -> list[list[str]]:
    return [[sys.executable, *script(tool), *arguments] for tool, arguments in table.data]


def show(
    table: Table,
    jobs: Sequence[Job],
    states: dict[Job, str],
    args: argparse.Namespace,
    nodes: int,
) -> None:
    """Print each run's state and command, in order."""
    done = sum(state == 'done' for state in states.values())
    print(f'{table.name}: {len(jobs)} runs, {done} of them done')
    if done < len(jobs):
        for command in data_commands(table):
            print(f'data: {shown(command)}')
    for number, job in enumerate(jobs, 1):
        state, testing = states[job], states[job] == 'untested'
        command: list[str] = []
        if args.launcher == 'slurm' and state != 'done':
            number_queued = queued(job)
            if number_queued:
                state = f'{state}, queued as job {number_queued}'
            else:
                waits = job.needs and states[job.needs] != 'done'
                after = f'<{job_name(job.needs)}>' if waits else None
                command = submission(job, args.partition, testing, after)
        elif testing:
            command = job.test_command()
        elif state != 'done':
            command = train_command(job, args.launcher, nodes)
        if is_locked(job.work_dir):
            state = f'{state}, at work'
        print(f'{number}. {job.label} ({state}) in {job.work_dir}')
        if state != 'done' and job.remark():
            print(f'   {job.remark()}')
        if command:
            print(f'   {shown(command)}')
    if not table.data:
        todo = [job for job in jobs if states[job] != 'done']
        for why in dict.fromkeys(filter(None, map(missing_data, todo))):
            print(f'not here: {why}')


def missing_data(job: Job) -> str | None:
    """What would refuse the run for want of its data."""
    try:
        engine.check_data(job.cfg, 'train_dataloader', 'val_dataloader')
    except engine.UserError as error:
        return str(error)
    return None


if __name__ == '__main__':
    main()
