"""tools/make_env.sh without a network, on a copy of what it reads: its errors, and when it runs."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement

tomllib = pytest.importorskip('tomllib')  # Python 3.10 has none

ROOT = Path(__file__).resolve().parents[2]
FILES = 'Makefile', 'pyproject.toml', 'requirements/constraints.txt', 'tools/make_env.sh'
# It answers what the script asks Python, and fails at what LACKS names. Its pip notes its calls.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
    *"${LACKS:-nothing}"*) echo -e "$SAYS"; exit ${STATUS:-1};;
    *version_info*) name=$(readlink -f "$0"); echo "${VERSION:-${name##*/python}}";;
    '-m venv'*) mkdir -p "$3/bin"; ln -s "$0" "$3/bin/python"; touch "$3/bin/pip" "$3/pyvenv.cfg";;
    '-m pip'*) echo called >> pip-calls; sleep "${SECONDS_OF_PIP:-0}";;
esac
"""
DF = '#!/bin/sh\necho; echo "disk 1 1 ${FREE:-9999} 1% /"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with what the script reads, and the stand-in as python3.11 and python3.12."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / 'bin').mkdir()
    for name, text in (('python3.11', STAND_IN), ('python3.12', STAND_IN), ('df', DF)):
        (tmp_path / 'bin' / name).write_text(text)
        (tmp_path / 'bin' / name).chmod(0o755)
    return tmp_path


def start(project: Path, *command: str, **settings: str) -> subprocess.Popen:
    ours = 'MMPARC_|PIP_|PYTHON|MAKE|MFLAGS'
    env = {name: value for name, value in os.environ.items() if not re.match(ours, name)}
    env |= {'PATH': f'{project}/bin:/usr/bin:/bin', **settings}
    options = {'cwd': project, 'env': env, 'start_new_session': True, 'text': True}
    command, pipe = command or ('tools/make_env.sh',), subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, **options)


def the_error(project: Path, **settings: str) -> str:
    process = start(project, **settings)
    error = process.communicate()[1]
    assert process.returncode == 1 and error.startswith('error: ') and error.count('\n') == 1
    return error


# What is set, what the Python lacks and says then, and what the error has to tell.
ERRORS = r"""
PYTHON=no-such-python | | | no-such-python, apt-get install -y python3
VERSION=3.6           | | | 3.6, 3.11 to 3.13, PYTHON=
PYTHON=python3.11 | ensurepip | | install -y python3.11-venv
X= | CDLL             | | install -y libgl1 libglib2.0-0 libxcb1
FREE=5000             | | | 5.6 GB, 5000 MB
X= | -m pip | ERROR: No matching x     | ERROR: No matching x, make_env.log
X= | -m pip | RETRY ERROR: Could not install: OSError: [Errno 13] | OSError: [Errno 13]
X= | -m pip | RETRY ERROR: No matching distribution | not be reached, ReadTimeout, PIP_INDEX
X= | -m pip | ERROR: Exception:\nTraceback\nValueError: x | pip failed, ValueError: x
STATUS=137 | -m pip | Collecting x     | pip failed, 137, Collecting x
X= | -m pip | ERROR: No space left     | 5.6 GB, TMPDIR
X= | import mmparc | ImportError: libx | ImportError: libx, make_env.log
MMPARC_CONSTRAINTS=no-such-file  | | | no-such-file, MMPARC_CONSTRAINTS
"""

RETRY = "Retrying after connection broken by 'ReadTimeoutError(1)'"


def test_errors(project: Path) -> None:
    for line in ERRORS.strip().splitlines():
        setting, lacks, says, wanted = map(str.strip, line.split('|'))
        says = says.replace(
            'RETRY ', "Retrying after connection broken by 'ReadTimeoutError(1)'\\n"
        )
        error = the_error(project, LACKS=lacks, SAYS=says, **dict([setting.split('=')]))
        assert 'could not be reached' not in error or 'not be reached' in wanted
        assert [words for words in wanted.split(', ') if words not in error] == []
        assert not (project / '.venv/make_env.stamp').exists()
        shutil.rmtree(project / '.venv', ignore_errors=True)


def test_ctrl_c(project: Path) -> None:
    process = start(project, SECONDS_OF_PIP='60')
    while not (project / 'pip-calls').exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and re.fullmatch('error: interrupted.*\n', error)


def test_only_what_has_changed(project: Path) -> None:
    def pips(**settings: str) -> int:
        assert start(project, 'make', 'env', **settings).wait() == 0
        return (project / 'pip-calls').read_text().count('called')

    assert pips() == pips() == 1
    for count, name in enumerate(FILES[1:], 2):
        text = (project / name).read_text()
        (project / name).write_text(text.replace('\n', '\n# changed\n', 1))
        os.utime(project / name, (0, 0))
        assert pips() == pips() == count
    (project / 'others.txt').write_text((project / FILES[2]).read_text() + '# other\n')
    assert pips(MMPARC_CONSTRAINTS='others.txt') == 5 and pips() == 6
    shutil.rmtree(project / '.venv')
    assert pips() == 7 and pips(MMPARC_VENV='other') == 8
    (project / 'pyproject.toml').open('a').write('[tool.x]\n')  # settings of tools do not count
    assert pips() == 8


def test_what_is_not_mixed(project: Path) -> None:
    assert start(project).wait() == 0
    assert '.venv was made with another Python than 3.12' in the_error(project, PYTHON='python3.12')
    activate = project / '.venv/bin/activate'
    activate.write_text('VIRTUAL_ENV=/elsewhere/.venv')
    assert 'was made in another folder' in the_error(project)
    activate.write_text(f'VIRTUAL_ENV={project.resolve()}/.venv')
    assert start(project).wait() == 0
    for package in ('mmcv-2.1.0', 'onedl_mmcv-2.3.6'):  # they have mmcv-lite's folder
        found = project / f'.venv/lib/python3.11/site-packages/{package}.dist-info'
        found.mkdir(parents=True)
        assert f'holds {package.partition("-")[0]},' in the_error(project)
        found.rmdir()
    assert start(project).wait() == 0
    (project / 'bin/python3.11').unlink()
    assert 'remove' in the_error(project)


@pytest.mark.parametrize('name, other', [('', 'onedl'), ('-torch2.1', 'onedl'), ('-onedl', 'mm')])
def test_all_that_we_ask_for_is_pinned(name: str, other: str) -> None:
    text = (ROOT / f'requirements/constraints{name}.txt').read_text()
    pins = dict(re.findall(r'^([^#\s]+)==(\S+)$', text.replace('_', '-').lower(), re.M))
    assert len(pins) == len(re.findall('^[^#]', text, re.M))
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    del project['optional-dependencies'][other]
    for wanted in sum(project['optional-dependencies'].values(), project['dependencies']):
        package = Requirement(wanted)
        assert package.specifier.contains(pins[package.name]), wanted
