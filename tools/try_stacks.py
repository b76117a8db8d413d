#!/usr/bin/env python3
"""Try mmparc on other stacks: `make test-stacks`, `make test-stacks STACK=torch2_1-py310`.

For each stack it makes an environment in .stacks/NAME, as `make env` makes .venv, asks whether that
has the versions of its constraints and no others, runs the quick tests in it, and trains, tests and
resumes a small model of each task. docs/robustness/stacks.json and stacks.md tell what came of it.
The environment is then removed, unless it could not be tried.

Standard library only: it needs no environment but a Python 3.10 or newer.
"""

import argparse
import collections
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs' / 'robustness' / 'stacks.json'


class Stack(NamedTuple):
    """What an environment is made from: versions, and the extra with the OpenMMLab packages."""

    python: str
    constraints: str
    extra: str = 'mm'


STACKS = {
    'default-py311': Stack('3.11', 'requirements/constraints.txt'),
    'default-py312': Stack('3.12', 'requirements/constraints.txt'),
    'default-py313': Stack('3.13', 'requirements/constraints.txt'),
    'torch2_1-py310': Stack('3.10', 'requirements/constraints-torch2.1.txt'),
    'torch2_1-py311': Stack('3.11', 'requirements/constraints-torch2.1.txt'),
    'onedl-py311': Stack('3.11', 'requirements/constraints-onedl.txt', extra='onedl'),
}

# Tests that are of no stack, or of the default one alone, and why.
LEFT_OUT = {
    'browser': 'the page of results, in a browser',
    'test_environment.py': 'make_env.py, which needs no packages',
    'test_guide.py': 'commands of the guide, in the default versions',
    'test_readme.py': 'commands of the README, in the default versions',
    'test_model_table.py': 'committed numbers',
    'test_paper_tables.py': 'committed numbers',
    'test_stacks.py': 'this tool, which needs no packages',
    'test_wheel.py': 'makes environments of its own',
}
TRAINING = 'test_tools.py::test_train_test_and_resume'
TASKS = 3

SHOWN = 'torch numpy opencv-python mmengine mmcv mmdet mmsegmentation mmpretrain'.split()
OTHER_NAMES = {'mmdet': 'onedl-mmdetection'}
INSTALLED = """
import json, platform
from importlib import metadata
names = {dist.metadata['Name']: dist.version for dist in metadata.distributions()}
print(json.dumps([platform.python_version(), names]))
"""


class Trouble(Exception):
    """What keeps a stack from being tried, in one line."""


# Environments


def interpreter(version: str) -> str:
    """A Python of this version: the PATH's, or one of pyenv's."""
    root = os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv'
    name = f'python{version}'
    found = [shutil.which(name), *sorted(glob.glob(f'{root}/versions/{version}.*/bin/{name}'))]
    for path in filter(None, found):
        # pyenv puts names on the PATH that answer with an error
        if subprocess.run([path, '-c', ''], capture_output=True).returncode == 0:
            return path
    raise Trouble(f'there is no {name} here: install it, or put it on the PATH')


def environment(*first: Path, **settings: str) -> dict[str, str]:
    """This process's, without what would let a stack see another's packages or programs."""
    kept = {k: v for k, v in os.environ.items() if k not in ('PYTHON', 'PYTHONPATH', 'VIRTUAL_ENV')}
    path = os.pathsep.join([*map(str, first), kept.get('PATH', os.defpath)])
    return kept | settings | {'PATH': path}


def make_environment(name: str, stack: Stack) -> Path:
    """The Python of a stack's environment, made by tools/make_env.py."""
    folder = ROOT / '.stacks' / name
    settings = {
        'MMPARC_VENV': str(folder),
        'MMPARC_CONSTRAINTS': stack.constraints,
        'MMPARC_EXTRA': stack.extra,
    }
    command = [interpreter(stack.python), str(ROOT / 'tools' / 'make_env.py')]
    made = subprocess.run(
        command, cwd=ROOT, env=environment(**settings), stderr=subprocess.PIPE, text=True
    )
    if made.returncode:
        raise Trouble(last_line(made.stderr).removeprefix('error: '))
    return folder / 'bin' / 'python'


def plain(name: str) -> str:
    """A package's name, of the spellings that are the same (PEP 503)."""
    return re.sub('[-_.]+', '-', name).lower()


def pins(constraints: str) -> dict[str, str]:
    """Versions by plain name."""
    found = re.findall(r'^([\w.-]+)==(\S+)', (ROOT / constraints).read_text(), re.MULTILINE)
    return {plain(name): version for name, version in found}


def versions(python: Path, stack: Stack) -> dict[str, str]:
    """Python's version and those of the packages that the page shows.

    Raises:
        Trouble: if the environment is not that of the stack: it was begun with other versions.
    """
    asked = subprocess.run(
        [python, '-c', INSTALLED], env=environment(), capture_output=True, text=True, cwd='/'
    )
    if asked.returncode:
        raise Trouble(f'its Python does not work: {last_line(asked.stderr)}')
    own, names = json.loads(asked.stdout)
    # a build of torch may have a tag of its own, as in 2.1.2+cpu
    found = {plain(name): version.partition('+')[0] for name, version in names.items()}
    for name in ('mmparc', 'pip'):
        found.pop(name, None)
    wanted = pins(stack.constraints)
    wrong = [f'{name} {found[name]}' for name in sorted(found) if found[name] != wanted.get(name)]
    if not own.startswith(f'{stack.python}.'):
        wrong.append(f'Python {own}')
    if wrong:
        folder = python.parents[1].relative_to(ROOT)
        raise Trouble(f'{folder} holds {", ".join(wrong)}: remove it, then run this again')
    shown = [name if name in found else OTHER_NAMES.get(name, f'onedl-{name}') for name in SHOWN]
    return {'Python': own, **{name: found[name] for name in shown}}


# Tests


def run_tests(python: Path, *arguments: str) -> dict[str, Any]:
    """Runs pytest in tests/; gives how many passed, and what failed and was skipped and why."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, 'report.xml')
        command = [str(python), '-m', 'pytest', '-q', f'--junitxml={report}', *arguments]
        print('$', *command, flush=True)
        env = environment(python.parent, OMP_NUM_THREADS='1')
        status = subprocess.run(command, cwd=ROOT / 'tests', env=env).returncode
        if status not in (0, 1):  # of tests that ran, and passed or failed
            raise Trouble(f'pytest ended with exit status {status}')
        return read_report(report)


def read_report(path: Path) -> dict[str, Any]:
    """Counts of pytest's report of the kind of JUnit."""
    passed, failed, skipped = 0, {}, collections.Counter()
    for case in ET.parse(path).iter('testcase'):
        said = {child.tag: child.get('message', '') for child in case}
        name = f'{case.get("classname", "").replace(".", "/")}::{case.get("name")}'
        wrong = said.get('failure', said.get('error'))
        if wrong is not None:
            failed[name.removeprefix('tests/')] = first_line(wrong)
        elif 'skipped' in said:
            skipped[said['skipped']] += 1
        else:
            passed += 1
    return {'passed': passed, 'failed': failed, 'skipped': dict(skipped)}


def first_line(text: str) -> str:
    return text.strip().partition('\n')[0][:200]


def last_line(text: str) -> str:
    return text.strip().rpartition('\n')[2]


def try_stack(name: str, workers: int) -> dict[str, Any]:
    """All that is known of a stack once it was tried."""
    start, stack, before = time.monotonic(), STACKS[name], commit()
    python = make_environment(name, stack)
    result: dict[str, Any] = {'commit': before, 'versions': versions(python, stack)}
    ignored = [f'--ignore={path}' for path in LEFT_OUT]
    result['tests'] = run_tests(python, '-n', str(workers), '--dist', 'worksteal', *ignored)
    result['training'] = run_tests(python, '-n', '0', '-m', '', TRAINING)
    if commit() != before:
        raise Trouble('the checkout changed meanwhile: run this again')
    result['minutes'] = round((time.monotonic() - start) / 60, 1)
    return result


def is_good(result: dict[str, Any]) -> bool:
    """Whether all of a stack's tests passed, but for those skipped, and all of its trainings."""
    tests, training = result['tests'], result['training']
    return bool(tests['passed']) and not tests['failed'] and training['passed'] == TASKS


def commit() -> str:
    """The checkout's, with a + where files were changed other than the results."""

    def git(*arguments: str) -> str:
        run = subprocess.run(
            ['git', '-C', str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    others = [f':!{path.relative_to(ROOT)}' for path in (RESULTS, RESULTS.with_suffix('.md'))]
    changed = git('status', '--porcelain', '--untracked-files=no', '--', '.', *others)
    return git('rev-parse', '--short', 'HEAD') + '+' * bool(changed)


# The page


def page(results: dict[str, dict[str, Any]]) -> str:
    """docs/robustness/stacks.md: a table of all stacks, then what failed and what was skipped."""
    head = ['stack', 'Python', 'torch', 'numpy', 'OpenCV', 'OpenMMLab', 'tests', 'training']
    head += ['minutes', 'commit', 'command']
    lines = ['# Stacks', '', 'Written by `make test-stacks`, see [README.md](README.md).', '']
    lines += [f'| {" | ".join(head)} |', f'|{" --- |" * len(head)}']
    for name in STACKS:
        lines.append(f'| {" | ".join([name, *row(name, results.get(name))])} |')
    lines += ['', 'Tests: passed / failed / skipped of those that are not slow. Training: of three']
    lines += ['tasks, those in which a small model was trained, tested and resumed.']
    lines += ['', 'Left out, since they are the same on each stack or of the default one alone:']
    lines += ['', *(f'- `tests/{path}`: {why}' for path, why in LEFT_OUT.items())]
    for name in STACKS:
        lines += notes(name, results.get(name, {}))
    return '\n'.join(lines) + '\n'


def row(name: str, result: dict[str, Any] | None) -> list[str]:
    command = f'`make test-stacks STACK={name}`'
    if result is None:
        return [STACKS[name].python, '', '', '', '', 'not tried', '', '', '', command]
    shown = dict(result['versions'])
    first = [shown.pop(key) for key in ('Python', 'torch', 'numpy', 'opencv-python')]
    packages = ', '.join(f'{package} {version}' for package, version in shown.items())
    tests = result['tests']
    counts = f'{tests["passed"]} / {len(tests["failed"])} / {sum(tests["skipped"].values())}'
    trained = f'{result["training"]["passed"]} of {TASKS}'
    last = [str(result['minutes']), result['commit'], command]
    return [*first, packages, counts, trained, *last]


def notes(name: str, result: dict[str, Any]) -> list[str]:
    """What failed, by name, and why tests were skipped."""
    lines = []
    for part in ('tests', 'training'):
        outcome = result.get(part, {'failed': {}, 'skipped': {}})
        lines += [f'- failed: `{test}`: {why}' for test, why in outcome['failed'].items()]
        lines += [f'- skipped, {count}: {why}' for why, count in outcome['skipped'].items()]
    return ['', f'## {name}', '', *lines] if lines else []


def write(results: dict[str, dict[str, Any]]) -> None:
    ordered = {name: results[name] for name in STACKS if name in results}
    RESULTS.write_text(json.dumps(ordered, indent=1) + '\n')
    RESULTS.with_suffix('.md').write_text(page(ordered))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0] + '.')
    parser.add_argument('names', nargs='+', metavar='STACK', help=f"{', '.join(STACKS)}, or 'all'")
    parser.add_argument('--keep', action='store_true', help='leave the environments in .stacks')
    parser.add_argument('--workers', type=int, default=2, help='of pytest (2)')
    args = parser.parse_args()
    names = list(STACKS) if args.names == ['all'] else args.names
    for name in names:
        if name not in STACKS:
            print(f'error: no stack {name!r}, but {", ".join(STACKS)}', file=sys.stderr)
            return 1
    bad = []
    for name in names:
        print(f'== {name}', flush=True)
        try:
            result = try_stack(name, args.workers)
        except Trouble as trouble:
            print(f'error: {name}: {trouble}', file=sys.stderr)
            bad.append(name)
            continue
        write({**json.loads(RESULTS.read_text()), name: result})
        if not is_good(result):
            print(f'error: {name}: {RESULTS.with_suffix(".md")} has what failed', file=sys.stderr)
            bad.append(name)
        if not args.keep:
            shutil.rmtree(ROOT / '.stacks' / name)
    return int(bool(bad))


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print('error: interrupted; a stack that was begun is tried anew', file=sys.stderr)
        sys.exit(130)
