#!/usr/bin/env python3
"""Try mmparc on other stacks: `make test-stacks`, `make test-stacks STACK=torch2_1-py310`.

A stack is a file of constraints and a Python, which must be on the PATH. In its environment, made
in .stacks, the quick tests run, and a small model of each task is trained, tested and resumed. The
results go to docs/robustness/stacks.json and stacks.md.
"""

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs/robustness/stacks.json'
PINS = {'default': '', 'torch2_1': '-torch2.1', 'onedl': '-onedl'}
STACKS = (
    'default-py311 default-py312 default-py313 torch2_1-py310 torch2_1-py311 onedl-py311'.split()
)
# These test the default stack alone, or what needs no stack.
LEFT_OUT = 'environment guide model_table paper_tables readme stacks wheel'.split()


def run(*command: str, **env: str) -> list[str]:
    """Shows and gives what a command printed. pytest may end with 1: some tests failed."""
    process = Popen(command, cwd=ROOT, env={**os.environ, **env}, stdout=PIPE, text=True)
    lines = [line.rstrip() for line in process.stdout if not print(line, end='', flush=True)]
    if process.wait() not in (0, int('pytest' in command)):
        sys.exit(f'error: {" ".join(command[:3])} ended with exit status {process.returncode}')
    return lines


def try_stack(name: str) -> dict:
    start, (pins, minor) = time.monotonic(), name.split('-py3')
    folder, pins = f'.stacks/{name}', f'requirements/constraints{PINS[pins]}.txt'
    env = {'MMPARC_VENV': folder, 'MMPARC_CONSTRAINTS': pins, 'PYTHON': f'python3.{minor}'}
    run('tools/make_env.sh', **env)
    changed = run('git', 'status', '--short', '-uno', '--', ':!docs/robustness/stacks.*')
    commit = run('git', 'rev-parse', '--short', 'HEAD')[0] + '+' * bool(changed)
    env = {'OMP_NUM_THREADS': '1', 'PATH': f'{ROOT}/{folder}/bin:{os.environ["PATH"]}'}
    pytest = [f'{folder}/bin/python', '-m', 'pytest', '-q', '-rfEs', '-n', '2']
    said = run(*pytest, 'tests', *(f'--ignore=tests/test_{name}.py' for name in LEFT_OUT), **env)
    trained = run(*pytest, '-m', '', 'tests/test_tools.py::test_train_test_and_resume', **env)
    found = [line.split('==') for line in run(*pytest[:2], 'pip', 'freeze') if '==' in line]
    shown = [pair for pair in found if re.match('torch|numpy|opencv|mm|onedl', pair[0])]
    return {
        'tests': said[-1],
        'training': trained[-1],
        'minutes': round((time.monotonic() - start) / 60, 1),
        'commit': commit,
        'versions': {'Python': f'3.{minor}', **dict(shown)},
        'notes': [line for line in said + trained if re.match('FAILED|ERROR|SKIPPED', line)],
    }


def page(results: dict[str, dict]) -> str:
    lines = ['# Stacks', '', 'Written by `make test-stacks`, see [README.md](README.md).', '']
    lines += ['| stack | quick tests | training | minutes | commit | versions |', '|---' * 6 + '|']
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
        shutil.rmtree(ROOT / '.stacks' / name)
    sys.exit(any(re.search('failed|error', str(results[name])) for name in names))
