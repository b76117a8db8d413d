"""Submits runs to slurm, each after what it needs: sbatch with tools/slurm_train.sh.

What is queued already is found by its job's name, which says the work directory.
"""

import os
import shlex
import shutil
import subprocess
import zlib
from collections.abc import Sequence

from mmparc import engine

from .jobs import Job, shell_script, shown

OUTPUT = 'stdout.txt'


def job_name(job: Job) -> str:
    """Unique to a work directory, also among those of several checkouts."""
    folder = str(job.work_dir.resolve())
    return f'{job.run.task}-{job.work_dir.name}-{zlib.crc32(folder.encode()):08x}'


def queued(job: Job) -> str | None:
    """The id of a run's job that waits or runs; None without one, or without squeue.

    Raises:
        UserError: if squeue fails.
    """
    if shutil.which('squeue') is None:
        return None
    return _ask(['squeue', '--me', '--noheader', '--format=%i', f'--name={job_name(job)}']) or None


def submission(job: Job, partition: str, testing: bool, after: str | None) -> list[str]:
    """The sbatch command of a run.

    Args:
        job: the run.
        partition: of the cluster.
        testing: for what lacks its last metrics alone; one GPU.
        after: the id of a job that must end well before.
    """
    gpus = 1 if testing else job.gpus
    per_node = min(gpus, int(os.environ.get('GPUS_PER_NODE', 8)))
    cpus = os.environ.get('CPUS_PER_TASK', '5')
    name = job_name(job)
    if testing:
        inner = shown(['srun', *job.test_command()])
    else:
        settings = f'GPUS={gpus} GPUS_PER_NODE={per_node} CPUS_PER_TASK={cpus}'
        words = ['bash', shell_script('slurm_train'), partition, name, *job.train_arguments()]
        inner = f'{settings} {shlex.join(words)}'
    command = [
        'sbatch',
        '--parsable',
        f'--partition={partition}',
        f'--job-name={name}',
        f'--gres=gpu:{per_node}',
        f'--ntasks={gpus}',
        f'--ntasks-per-node={per_node}',
        f'--cpus-per-task={cpus}',
        f'--output={job.work_dir / OUTPUT}',
        '--open-mode=append',
    ]
    if after:
        command += [f'--dependency=afterok:{after}', '--kill-on-invalid-dep=yes']
    return [*command, f'--wrap={inner}']


def submit(jobs: Sequence[Job], partition: str) -> dict[Job, str]:
    """Submit what is neither done nor queued, and say so.

    Returns:
        {job: its id}

    Raises:
        UserError: if slurm is not there or refuses.
        ValueError: if what lies in a work directory is not of such a run.
    """
    if shutil.which('sbatch') is None:
        raise engine.UserError('sbatch is not on the PATH: log in where slurm is')
    ids: dict[Job, str] = {}
    for job in jobs:
        state = job.state()
        if state.name == 'done':
            print(f'{job.label}: done')
            continue
        known = queued(job)
        if known:
            print(f'{job.label}: queued already, job {known}')
            ids[job] = known
            continue
        job.work_dir.mkdir(parents=True, exist_ok=True)
        command = submission(job, partition, state.name == 'untested', ids.get(job.needs))
        ids[job] = _ask(command).partition(';')[0]  # behind it the cluster
        print(f'{job.label}: submitted, job {ids[job]}')
    return ids


def _ask(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        said = ' '.join(result.stderr.split())
        raise engine.UserError(f'{command[0]} ended with exit status {result.returncode}: {said}')
    return result.stdout.strip()
