#!/usr/bin/env python
"""Run what a table of configs/tables needs, in the right order.

Finished runs are skipped and interrupted ones continue from their last checkpoint: the same command
again completes a table. tools/slurm_reproduce.sh submits the runs to slurm instead.
"""

import argparse
import shlex
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

from mmparc import tool
from mmparc.errors import UserError


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('table', help='a name such as detection, or a .yaml file')
    parser.add_argument('--rows', nargs='+', metavar='NAME', help='only these rows')
    parser.add_argument(
        '--work-dirs', type=Path, default=Path('work_dirs'), help='folder of all runs (work_dirs)'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch'], default='none')
    parser.add_argument('--gpus', type=int, metavar='N', help='GPUs per run (all of this machine)')
    show = parser.add_mutually_exclusive_group()
    show.add_argument('--dry-run', action='store_true', help='only list the runs, in order')
    show.add_argument(
        '--plan', action='store_true', help='only list the unfinished runs for slurm_reproduce.sh'
    )
    tool.add_cfg_options(parser, 'override config entries in all runs')
    return parser


def main(args: argparse.Namespace) -> None:
    from mmparc import engine
    from mmparc.results.plan import load_table
    from mmparc.results.run import Job, make_jobs, run_jobs

    gpus = count_gpus(args)
    try:
        table = load_table(args.table)
        rows, options = table.select(args.rows), args.cfg_options or {}
        jobs = make_jobs(rows, args.table, args.work_dirs, options, gpus)
        todo = [job for job in jobs if job.state().name != 'done']
        command = partial(Job.command, launcher=args.launcher)
        if args.plan:
            print(*(plan_line(job, todo) for job in todo), sep='\n')
            return
        if args.dry_run:
            show(table, jobs, command)
            return
        if todo:
            make_data(table)
        for job in todo:
            engine.check_data(job.cfg, 'train_dataloader', 'val_dataloader')
    except ValueError as error:
        raise UserError(str(error)) from None
    outcomes = run_jobs(jobs, command)
    done = sum(not why for why in outcomes.values())
    print(f'{table.name}: {done} of {len(jobs)} runs are done')
    sys.exit(0 if done == len(jobs) else 1)


def count_gpus(args: argparse.Namespace) -> int | None:
    """GPUs of each run; None: as many as its batch asks for."""
    if args.gpus is not None and args.gpus < 1:
        raise UserError('--gpus must be at least 1')
    if args.plan:
        return args.gpus
    if args.launcher == 'none':
        if args.gpus:
            raise UserError('--gpus needs --launcher pytorch')
        return 1
    import torch

    gpus = args.gpus or torch.cuda.device_count()
    if not gpus:
        raise UserError('--launcher pytorch finds no GPU here: pass --gpus N')
    return gpus


def plan_line(job, todo: list) -> str:
    """Of slurm_reproduce.sh: name, name of the job to wait for or '-', GPUs, folder, arguments."""

    def name(job) -> str:
        return f'{job.work_dir.name}-{zlib.crc32(str(job.work_dir.resolve()).encode()):08x}'

    after = name(job.needs) if job.needs in todo else '-'
    words = name(job), after, str(job.gpus), str(job.work_dir), shlex.join(job.train_arguments())
    return '\t'.join(words)


def make_data(table) -> None:
    for step in table.data:
        status = subprocess.run([sys.executable, '-m', 'mmparc', *shlex.split(step)]).returncode
        if status != 0:
            raise UserError(f'exit status {status} from python -m mmparc {step}')


def show(table, jobs: list, command) -> None:
    """Print each run's state and command, in order, and which data is missing."""
    from mmparc import engine
    from mmparc.results.run import is_running, shown

    states = [job.state() for job in jobs]
    done = sum(state.name == 'done' for state in states)
    print(f'{table.name}: {len(jobs)} runs, {done} of them done')
    for step in table.data:
        print(f'data: python -m mmparc {step}')
    missing = {}
    for number, (job, state) in enumerate(zip(jobs, states), 1):
        words = [state.name, state.saved, 'running' if is_running(job.work_dir) else '']
        print(f'{number}. {job.label} ({", ".join(filter(None, words))}) in {job.work_dir}')
        if state.name == 'done':
            continue
        if job.batch != job.row.batch:
            lr = 'is scaled with it' if job.scales_lr else 'stays: no base_batch_size in the config'
            print(f'   the batch is {job.batch} instead of {job.row.batch}; the learning rate {lr}')
        print(f'   {shown(command(job))}')
        try:
            engine.check_data(job.cfg, 'train_dataloader', 'val_dataloader')
        except UserError as error:
            missing[str(error)] = None
    for why in missing if not table.data else ():
        print(f'not here: {why}')


if __name__ == '__main__':
    tool.run(make_parser(), main)
