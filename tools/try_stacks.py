#!/usr/bin/env python3
"""Try mmparc on other stacks: `make test-stacks`, `make test-stacks STACK=torch2_1-py310`.

A stack is a file of constraints and a Python on the PATH; its environment is made in .stacks.
"""

import json
import os
import re
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs/robustness/stacks.json'
PINS = {'default': '', 'torch2_1': '-torch2.1', 'onedl': '-onedl'}
STACKS = [f'default-py3{minor}' for minor in (11, 12, 13)]
STACKS += ['torch2_1-py310', 'torch2_1-py311', 'onedl-py311']
# Tests that do not depend on the stack.
LEFT_OUT = ['docs', 'install']


def run(*command: str, allowed: tuple[int, ...] = (0,), **variables: str) -> list[str]:
    """Print a command's output and return its lines."""
    process = Popen(command, cwd=ROOT, env=os.environ | variables, stdout=PIPE, text=True)
    lines = []
    for line in process.stdout:
        print(line, end='', flush=True)
        lines.append(line.rstrip())
    if process.wait() not in allowed:
        sys.exit(f'error: {" ".join(command[:3])} ended with exit status {process.returncode}')
    return lines


def try_stack(stack: str) -> dict:
    start, venv, (pins, minor) = time.monotonic(), f'.stacks/{stack}', stack.split('-py3')
    constraints, python = f'requirements/constraints{PINS[pins]}.txt', f'python3.{minor}'
    run('tools/make_env.sh', MMPARC_VENV=venv, MMPARC_CONSTRAINTS=constraints, PYTHON=python)
    changed = run('git', 'status', '--short', '-uno', '--', ':!docs/robustness/stacks.*')
    commit = run('git', 'rev-parse', '--short', 'HEAD')[0] + ('+' if changed else '')
    pytest = [f'{venv}/bin/python', '-m', 'pytest', '-q', '-rfEs', '-n', '2']
    quick = ['tests', *(f'--ignore=tests/{name}' for name in LEFT_OUT)]
    slow = ['-m', '', 'tests/tools/test_train.py::test_the_whole_way', 'tests/test_mmcv_ops.py']
    variables = {'OMP_NUM_THREADS': '1', 'PATH': f'{ROOT}/{venv}/bin:{os.environ["PATH"]}'}
    said, trained = (run(*pytest, *tests, allowed=(0, 1), **variables) for tests in (quick, slow))
    freeze = '\n'.join(run(*pytest[:2], 'pip', 'freeze'))
    packages = re.findall('^((?:torch|numpy|opencv|mm|onedl).*)==(.*)', freeze, re.M)
    return {
        'tests': said[-1],
        'training': trained[-1],
        'minutes': round((time.monotonic() - start) / 60, 1),
        'commit': commit,
        'versions': {'Python': f'3.{minor}', **dict(packages)},
        'notes': [line for line in said + trained if re.match('FAILED|ERROR|SKIPPED', line)],
    }


def page(results: dict[str, dict]) -> str:
    lines = ['# Stacks', '', 'Written by `make test-stacks`, see [README.md](README.md).', '']
    lines += ['| stack | quick tests | slow ones | minutes | commit | versions |', '|---' * 6 + '|']
    for name in sorted(results, key=STACKS.index):
        *cells, versions, _ = results[name].values()
        cells.append(', '.join(map(' '.join, versions.items())))
        lines.append(f'| {" | ".join(map(str, [name, *cells]))} |')
    notes = [f'- {name}: {note}' for name in results for note in results[name]['notes']]
    return '\n'.join([*lines, '', *notes, ''])


if __name__ == '__main__':
    names = sys.argv[1:] or STACKS
    if wrong := set(names) - set(STACKS):
        sys.exit(f'error: no stack {", ".join(wrong)}, but {", ".join(STACKS)}')
    for name in names:
        results = json.loads(RESULTS.read_text()) | {name: try_stack(name)}
        RESULTS.write_text(json.dumps(results, indent=1) + '\n')
        RESULTS.with_suffix('.md').write_text(page(results))
        run('rm', '-r', f'.stacks/{name}')
    ends = ' '.join(results[name]['tests'] + results[name]['training'] for name in names)
    sys.exit('failed' in ends or 'error' in ends)
