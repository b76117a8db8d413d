#!/usr/bin/env python3
"""Try mmparc on other stacks: `make test-stacks`, `make test-stacks STACK=torch2_1-py310`.

For each stack of requirements/stacks.toml it makes an environment in .stacks/NAME, as `make env`
makes .venv, runs the tests in it that are not slow, trains, tests and resumes a small model of each
task, writes what came of it to docs/robustness/stacks.json and stacks.md, and removes it.

Standard library only: it needs no environment but a Python 3.11 or newer.
"""

import argparse
import collections
import functools
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).resolve().parents[1]
STACKS = ROOT / 'requirements' / 'stacks.toml'
RESULTS = ROOT / 'docs' / 'robustness' / 'stacks.json'

# What differs from stack to stack. The rest of the tests is of documents and of tools that
# make an environment, which are the same in each.
QUICK = """
test_ops test_models robustness test_compile.py test_configs.py test_converters.py test_datasets.py
test_engine.py test_erf.py test_export.py test_figures.py test_flops.py test_layer_decay.py
test_loading.py test_parcnet_configs.py test_resuming.py test_swap.py test_tools.py
""".split()
TRAINING = ['test_tools.py::test_train_test_and_resume']

PACKAGES = 'torch numpy opencv-python mmengine mmcv mmdet mmsegmentation mmpretrain'.split()
FORKS = {'mmdet': 'onedl-mmdetection'}
VERSIONS = """
import json, platform, sys
from importlib import metadata
names = {dist.metadata['Name'].lower().replace('_', '-'): dist.version
         for dist in metadata.distributions() if dist.metadata['Name']}
print(json.dumps({'Python': platform.python_version(), **names}))
"""


class Trouble(Exception):
    """What keeps a stack from being tried, in one line."""


def stacks() -> dict[str, dict[str, str]]:
    return tomllib.loads(STACKS.read_text())


def interpreter(version: str) -> str:
    """A Python of this version: the PATH's, or one of pyenv's."""
    root = os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv'
    name = f'python{version}'
    found = [shutil.which(name), *sorted(glob.glob(f'{root}/versions/{version}.*/bin/{name}'))]
    for path in filter(None, found):
        # pyenv puts names on the PATH that answer with an error
        if subprocess.run([path, '-c', ''], capture_output=True).returncode == 0:
            return path
    raise Trouble(f'there is no {name} here')


def make_environment(name: str, stack: dict[str, str]) -> Path:
    """The Python of a stack's environment, made by tools/make_env.py."""
    folder = Path('.stacks', name)
    settings = {
        'MMPARC_VENV': str(folder),
        'MMPARC_CONSTRAINTS': stack['constraints'],
        'MMPARC_EXTRA': stack.get('extra', 'mm'),
    }
    command = [interpreter(stack['python']), str(ROOT / 'tools' / 'make_env.py')]
    made = subprocess.run(
        command, cwd=ROOT, env=clean(**settings), stderr=subprocess.PIPE, text=True
    )
    if made.returncode:
        raise Trouble(made.stderr.strip().removeprefix('error: '))
    return ROOT / folder / 'bin' / 'python'


def clean(**settings: str) -> dict[str, str]:
    """The environment without what would let one stack see the packages of another."""
    kept = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}
    return kept | settings


def run_tests(python: Path, *arguments: str) -> dict[str, Any]:
    """Runs pytest in tests/; gives how many passed, and what failed and was skipped and why."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, 'report.xml')
        command = [str(python), '-m', 'pytest', '-q', f'--junitxml={report}', *arguments]
        print('$', *command, flush=True)
        subprocess.run(command, cwd=ROOT / 'tests', env=clean(OMP_NUM_THREADS='1'))
        if not report.is_file():
            raise Trouble('pytest did not come to its end')
        return read_report(report)


def read_report(path: Path) -> dict[str, Any]:
    """Counts of pytest's report of the kind of JUnit."""
    passed, failed, skipped = 0, {}, collections.Counter()
    for case in ET.parse(path).iter('testcase'):
        outcome = next((child for child in case if child.tag != 'properties'), None)
        outcomes = {child.tag: child.get('message', '') for child in case}
        name = f'{case.get("classname", "").replace(".", "/")}::{case.get("name")}'
        for tag in ('failure', 'error'):
            if tag in outcomes:
                failed[name.removeprefix('tests/')] = first_line(outcomes[tag])
        if 'skipped' in outcomes:
            skipped[outcomes['skipped']] += 1
        elif outcome is None or not {'failure', 'error'} & outcomes.keys():
            passed += 1
    return {'passed': passed, 'failed': failed, 'skipped': dict(skipped)}


def first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), '')[:200]


def try_stack(name: str, stack: dict[str, str], workers: int, tests: list) -> dict[str, Any]:
    """All that is known of a stack once it was tried."""
    start = time.monotonic()
    command = f'make test-stacks STACK={name}'
    if tests != QUICK:
        command = f'tools/try_stacks.py {name} --tests {" ".join(tests)}'
    result: dict[str, Any] = {'commit': commit(), 'command': command}
    try:
        python = make_environment(name, stack)
        said = subprocess.run([python, '-c', VERSIONS], env=clean(), capture_output=True, text=True)
        versions = json.loads(said.stdout)
        result['versions'] = {'Python': versions['Python']}
        for package in PACKAGES:
            names = (package, FORKS.get(package, f'onedl-{package}'))
            (found,) = (other for other in names if other in versions)
            result['versions'][found] = versions[found]
        many = ['-n', str(workers), '--dist', 'worksteal']
        result['tests'] = run_tests(python, *many, *tests)
        result['training'] = run_tests(python, '-n', '0', '-m', '', *TRAINING)
    except Trouble as trouble:
        result['trouble'] = str(trouble)
    result['minutes'] = round((time.monotonic() - start) / 60, 1)
    return result


@functools.cache  # as it was before the first result was written
def commit() -> str:
    """The checkout's, with a + where files were changed."""
    run = ['git', '-C', str(ROOT), 'describe', '--always', '--dirty=+', '--exclude=*']
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()


# The page


def page(results: dict[str, dict[str, Any]]) -> str:
    """docs/robustness/stacks.md: a table of all stacks, then what failed and what was skipped."""
    head = ['stack', 'Python', 'torch', 'numpy', 'OpenCV', 'OpenMMLab', 'tests', 'training']
    head += ['commit', 'command']
    lines = ['# Stacks', '', 'Written by `make test-stacks`, see [README.md](README.md).', '']
    lines += [f'| {" | ".join(head)} |', f'|{" --- |" * len(head)}']
    for name, stack in stacks().items():
        cells = [name, *row(stack, results.get(name))]
        lines.append(f'| {" | ".join(cells)} |')
    lines += ['', 'Tests: passed / failed / skipped of those that are not slow. Training: of three']
    lines += ['tasks, those in which a small model was trained, tested and resumed.']
    for name in stacks():
        lines += notes(name, results.get(name, {}))
    return '\n'.join(lines) + '\n'


def row(stack: dict[str, str], result: dict[str, Any] | None) -> list[str]:
    if result is None or 'tests' not in result:
        outcome = 'not tried' if result is None else 'not to its end, see below'
        rest = [result['commit'], f'`{result["command"]}`'] if result else ['', '']
        return [stack['python'], '', '', '', '', outcome, '', *rest]
    versions = dict(result['versions'])
    first = [versions.pop(key) for key in ('Python', 'torch', 'numpy', 'opencv-python')]
    packages = ', '.join(f'{name} {version}' for name, version in versions.items())
    tests, training = result['tests'], result.get('training')
    counts = f'{tests["passed"]} / {len(tests["failed"])} / {sum(tests["skipped"].values())}'
    tasks = f'{training["passed"]} of 3' if training else 'not tried'
    return [*first, packages, counts, tasks, result['commit'], f'`{result["command"]}`']


def notes(name: str, result: dict[str, Any]) -> list[str]:
    """What failed, by name, and why tests were skipped."""
    lines = [f'- not tried to its end: {result["trouble"]}'] if 'trouble' in result else []
    for part in ('tests', 'training'):
        outcome = result.get(part, {'failed': {}, 'skipped': {}})
        lines += [f'- failed: `{test}`: {why}' for test, why in outcome['failed'].items()]
        lines += [f'- skipped, {count}: {why}' for why, count in outcome['skipped'].items()]
    return ['', f'## {name}', '', *lines] if lines else []


def write(results: dict[str, dict[str, Any]]) -> None:
    ordered = {name: results[name] for name in stacks() if name in results}
    RESULTS.write_text(json.dumps(ordered, indent=1) + '\n')
    RESULTS.with_suffix('.md').write_text(page(ordered))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0] + '.')
    parser.add_argument('names', nargs='+', metavar='STACK', help="of stacks.toml, or 'all'")
    parser.add_argument('--keep', action='store_true', help='leave the environments in .stacks')
    parser.add_argument('--tests', nargs='+', metavar='PATH', help='others below tests/')
    parser.add_argument('--workers', type=int, default=2, help='of pytest (2)')
    args = parser.parse_args()
    known = stacks()
    names = list(known) if args.names == ['all'] else args.names
    for name in names:
        if name not in known:
            print(f'error: no stack {name!r}, but {", ".join(known)}', file=sys.stderr)
            return 1
    good = True
    for name in names:
        print(f'== {name}', flush=True)
        result = try_stack(name, known[name], args.workers, args.tests or QUICK)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        write({**results, name: result})
        if 'trouble' in result:
            print(f'error: {name}: {result["trouble"]}', file=sys.stderr)
        outcomes = [result.get(part) for part in ('tests', 'training')]
        good &= all(outcome and not outcome['failed'] for outcome in outcomes)
        if not args.keep:
            shutil.rmtree(ROOT / '.stacks' / name, ignore_errors=True)
    return int(not good)


if __name__ == '__main__':
    sys.exit(main())
