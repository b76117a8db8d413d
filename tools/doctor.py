#!/usr/bin/env python3
"""Says what is wrong with this environment and what mends it: `tools/doctor.py [--data-root data]`.

It looks at versions, at what loads and on which devices, and at the data sets. Each line has a
mark: ok; note, worth knowing; warn, will get in the way; BROKEN, needed but does not work. Below
each trouble is what mends it. The exit code is 1 if something is BROKEN.

Standard library only, and nothing of mmparc: it runs where all of these are missing or damaged.
"""

import argparse
import collections
import glob
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info < (3, 10):  # noqa: UP036  nothing keeps an older one from a checkout
    sys.exit('error: mmparc needs Python 3.10 or newer: make env PYTHON=python3.11')

OK, NOTE, WARN, BROKEN = 'ok', 'note', 'warn', 'BROKEN'
HOME = Path(__file__).resolve().parents[1]  # a checkout, or mmparc/.mim of a wheel
INSIDE = Path(sys.prefix).resolve() == (HOME / '.venv').resolve()
SECONDS = 300  # until a probe counts as hanging

# Extras of mmparc, named as their packages, and what more they hold.
OPTIONAL = ('tensorboard', 'timm', 'onnx', 'onnxruntime', 'onnxscript')
MODULES = {'opencv-python': 'cv2', 'mmsegmentation': 'mmseg', 'setuptools': 'pkg_resources'}
# The maintained forks, which come all together in place of the originals.
FORKS = {
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
    'mmpretrain': 'onedl-mmpretrain',
}
MODULES |= {fork: MODULES.get(name, name) for name, fork in FORKS.items()}
LIBRARIES = {
    'libGL.so': 'libgl1',
    'libglib-2.0.so': 'libglib2.0-0',
    'libgthread-2.0.so': 'libglib2.0-0',
    'libxcb.so': 'libxcb1',
}


class Probe(NamedTuple):
    """Code that raises where something does not work, and may set `found` to texts by name.

    Attributes:
        package: the distribution that is to blame.
        code: runs in a process of its own, so that it may crash.
        needs: the probes before it without which it cannot work.
    """

    package: str
    code: str
    needs: tuple[str, ...] = ()


TORCH = """
import torch
gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
found = {
    'CUDA': torch.version.cuda or 'none',
    'GPU': ', '.join(map(torch.cuda.get_device_name, gpus)) or 'none',
}
torch.from_numpy(__import__('numpy').zeros(1))
"""
TORCHVISION = """
import torch, torchvision
torchvision.ops.nms(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([0.5]), 0.5)
"""
# Two boxes of three overlap: the better one of these is kept, and the third.
MMCV = """
import torch
from mmcv.ops import get_compiling_cuda_version, nms
cuda = get_compiling_cuda_version().replace('not available', 'none')
devices = ['cpu', 'cuda'] if cuda != 'none' and torch.cuda.is_available() else ['cpu']
for device in devices:
    boxes = [[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [9.0, 9.0, 12.0, 12.0]]
    scores = torch.tensor([0.5, 0.9, 0.7], device=device)
    kept = nms(torch.tensor(boxes, device=device), scores, 0.5)[1].tolist()
    if kept != [1, 2]:
        raise RuntimeError(f'nms on {device} keeps boxes {kept}, not [1, 2]')
found = {'nms is right on': ' and '.join(devices), 'built with CUDA': cuda}
"""
PARC = """
import torch
from mmparc.ops import BACKENDS, parc, parc_reference
devices = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
torch.manual_seed(0)
operands = [torch.randn(shape).double() for shape in [(2, 6, 13, 10), (6, 1, 7), (6,), (6, 7)]]
for axis in 'hw':
    expected = parc_reference(*operands, axis=axis, groups=6)
    for device in devices:
        for backend in BACKENDS:
            placed = [t.to(device) for t in operands]
            y = parc(*placed, axis=axis, groups=6, backend=backend).cpu()
            error = ((y - expected).abs().max() / expected.abs().max()).item()
            if not error < 2e-7:
                raise RuntimeError(f'{backend} on {device}: relative error {error:.1e}')
found = {', '.join(BACKENDS) + ' are right on': ' and '.join(devices)}
"""
PROBES = {
    'pkg_resources': Probe('setuptools', 'import pkg_resources'),
    'numpy': Probe('numpy', 'import numpy; numpy.ones(1) @ numpy.ones(1)'),
    'cv2': Probe('opencv-python', 'import cv2, numpy; cv2.flip(numpy.ones(4), 0)', ('numpy',)),
    'pycocotools': Probe('pycocotools', 'import pycocotools.mask', ('numpy',)),
    'torch': Probe('torch', TORCH, ('numpy',)),
    'torchvision': Probe('torchvision', TORCHVISION, ('torch',)),
    'mmparc.ops': Probe('mmparc', PARC, ('torch',)),
    'mmengine': Probe('mmengine', 'import mmengine.runner', ('torch', 'cv2')),
    'mmcv.ops': Probe('mmcv', MMCV, ('mmengine',)),
    'mmpretrain': Probe('mmpretrain', 'import mmpretrain.apis', ('mmcv.ops', 'torchvision')),
    'mmdet': Probe('mmdet', 'import mmdet.apis', ('mmcv.ops', 'pycocotools')),
    'mmseg': Probe('mmsegmentation', 'import mmseg.apis, mmseg.utils', ('mmcv.ops',)),
    'mmparc.models': Probe('mmparc', 'import mmparc.models', ('mmparc.ops', 'mmpretrain')),
}
# Starts a probe; the folder it is started in must not be where packages come from.
CHILD = """
import json, sys
sys.path = [folder for folder in sys.path if folder]
scope = {}
try:
    exec(sys.argv[1], scope)
except Exception as error:
    sys.exit(' '.join(f'{type(error).__name__}: {error}'.split()))
print('', json.dumps(scope.get('found', {})), sep='\\n', flush=True)
"""

# Where the configs look, below the data root: patterns of files, and how many were published.
# The small ones say in a manifest how many files they have.
DATA: dict[str, tuple[str, dict[str, int]]] = {
    'ImageNet-1k': ('imagenet', {'train/*/*.*': 1_281_167, 'val/*/*.*': 50_000}),
    'COCO 2017': (
        'coco',
        {
            'train2017/*.jpg': 118_287,
            'val2017/*.jpg': 5_000,
            'annotations/instances_train2017.json': 1,
            'annotations/instances_val2017.json': 1,
        },
    ),
    'ADE20K': (
        'ade/ADEChallengeData2016',
        {
            'images/training/*.jpg': 20_210,
            'images/validation/*.jpg': 2_000,
            'annotations/training/*.png': 20_210,
            'annotations/validation/*.png': 2_000,
        },
    ),
    'VOC 2012 + aug': (
        'VOCdevkit/VOC2012',
        {
            'JPEGImages/*.jpg': 17_125,
            'SegmentationClass/*.png': 2_913,
            'SegmentationClassAug/*.png': 11_355,
            'ImageSets/Segmentation/train.txt': 1,
            'ImageSets/Segmentation/aug.txt': 1,
            'ImageSets/Segmentation/val.txt': 1,
        },
    ),
    **{f'small {task}': (f'tiny/{task}', {}) for task in ('cls', 'det', 'seg')},
}

marks: collections.Counter[str] = collections.Counter()


def say(mark: str, name: str, text: str, fix: str = '') -> None:
    marks[mark] += 1
    print(f'  {mark:<8}{name:<22}{text}'.rstrip())
    if fix:
        print(f'{"":10}mend: {fix}')
    sys.stdout.flush()


# What mends


def has_forks() -> bool:
    return bool(version_of(FORKS['mmengine'])) and not version_of('mmengine')


def chosen(name: str) -> str:
    """A package, or its fork where that is what this Python has."""
    return FORKS.get(name, name) if has_forks() else name


def pip(*words: str) -> str:
    return shlex.join([sys.executable, '-m', 'pip', 'install', *words])


def mend(name: str, wanted: object = '', version: str = '') -> str:
    """The command that installs a package; with a version, that one again, since it is damaged."""
    checkout = (HOME / 'Makefile').is_file()
    is_mmcv = name in ('mmcv', FORKS['mmcv'])
    ours = is_mmcv or name == 'mmparc' or not version
    if checkout and ((INSIDE and ours) or not version_of('mmparc')):
        # with its stamp make takes the environment for finished, with its key mmcv
        stale = '.venv/make_env.stamp' + ' .venv/mmcv.key' * is_mmcv
        command = f'rm -f {stale} && make env' if INSIDE else 'make env && . .venv/bin/activate'
        return command if Path.cwd() == HOME else f'cd {shlex.quote(str(HOME))} && {command}'
    if name == 'mmparc' and checkout:
        return pip('--no-deps', '-e', str(HOME))
    if is_mmcv:
        if sys.version_info >= (3, 13):
            return 'build it with `make env` in a checkout: its setup.py alone fails on Python 3.13'
        options = ['--no-build-isolation', '--no-cache-dir', '--no-binary', name]
        build = pip(*options, '--force-reinstall', '--no-deps', f'{name}{wanted}')
        return f'{pip("setuptools<81", "wheel", "ninja", "psutil")} && MMCV_WITH_OPS=1 {build}'
    if not version:
        return pip(f'{name}{wanted}')
    torch = version_of('torch') if name == 'torchvision' else ''
    tag = (torch or version).partition('+')[2]  # no version of the default index has one
    note = f' --index-url INDEX, the one of its {tag} builds' if tag else ''
    if torch:  # torchvision is that of another torch: pip looks for the one that suits
        remove = shlex.join([sys.executable, '-m', 'pip', 'uninstall', '-y', name])
        return f'{remove} && {pip(name, f"torch=={torch}")}{note}'
    return pip('--force-reinstall', '--no-deps', f'{name}=={version}') + note


def mend_error(probe: Probe, error: str, needs: dict[str, Any]) -> str:
    """The command that mends what a probe ran into."""
    for library, package in LIBRARIES.items():
        if library in error:
            return f'sudo apt-get update && sudo apt-get install -y {package}'
    missing = re.search(r"No module named '(\w+)'", error)
    if missing:
        names = {module: name for name, module in MODULES.items() if name not in FORKS.values()}
        name = chosen(names.get(missing[1], missing[1]))
        return mend(name, needs.get(name) or '')
    incompatible = re.search(r'MMCV==\S+ is used but incompatible', error)
    name = chosen('mmcv' if incompatible else probe.package)
    return mend(name, needs.get(name) or '', version_of(name))


# Versions


def version_of(name: str) -> str:
    """'' for what is not installed, or half removed."""
    try:
        return (metadata.distribution(name).metadata or {}).get('Version') or ''
    except (metadata.PackageNotFoundError, OSError):
        return ''


def requirements() -> dict[str, Any]:
    """The packages of mmparc's own metadata, each with a packaging.SpecifierSet, or None."""
    try:
        try:
            from packaging.requirements import Requirement
        except ImportError:
            from pip._vendor.packaging.requirements import Requirement
        if version_of('mmparc'):
            lines = metadata.requires('mmparc') or []
        else:
            import tomllib

            project = tomllib.loads((HOME / 'pyproject.toml').read_text())['project']
            lines = list(project['dependencies'])
            for extra, more in project['optional-dependencies'].items():
                lines += [f'{line}; extra == "{extra}"' for line in more]
    except (ImportError, OSError) as error:  # tomllib is of Python 3.11
        say(
            NOTE,
            'ranges',
            f'what mmparc needs is unknown: {error}',
            mend('packaging'),
        )
        packages = [probe.package for probe in PROBES.values()]
        return dict.fromkeys(package for package in packages if package != 'mmparc')
    needs = {}
    for requirement in map(Requirement, ['numpy', *lines]):
        for extra in ('', 'onedl' if has_forks() else 'mm', *OPTIONAL):
            if requirement.marker is None or requirement.marker.evaluate({'extra': extra}):
                needs[requirement.name] = requirement.specifier
    return needs


def same_name(other: str | None, name: str) -> bool:
    """Of one package, as Jinja2 is jinja2 (PEP 503); None, of broken metadata, is no other's."""
    spellings = {re.sub('[-_.]+', '-', spelling).lower() for spelling in (other or name, name)}
    return len(spellings) == 1


def check_packages(needs: dict[str, Any]) -> set[str]:
    """Versions and ranges; gives the packages that are missing."""
    say(OK, 'Python', f'{sys.version.split()[0]} ({sys.executable})')
    version = version_of('mmparc')
    if version:
        say(OK, 'mmparc', version)
    else:  # it may be on the path all the same, which is tried below
        say(NOTE, 'mmparc', 'not installed in this Python', mend('mmparc'))
    providers = metadata.packages_distributions()
    missing = set()
    for name, wanted in needs.items():
        version, module = version_of(name), MODULES.get(name, name)
        # such as a fork, under its own name
        others = [other for other in providers.get(module, ()) if not same_name(other, name)]
        named = ', '.join(f'{other} {version_of(other)}' for other in dict.fromkeys(others))
        if not version and named:
            say(NOTE, name, f'{named} stands in for it')
        elif not version:
            mark = NOTE if name in OPTIONAL else BROKEN
            say(mark, name, 'not installed', mend(name, wanted or ''))
            missing.add(name)
        elif wanted is None or wanted.contains(version, prereleases=True):
            say(OK, name, f'{version:<16}' + f'needs {wanted}' * bool(wanted))
        else:
            # a newer setuptools may still have pkg_resources, which is tried below
            mark = WARN if name in ('setuptools', *OPTIONAL) else BROKEN
            say(mark, name, f'{version:<16}needs {wanted}', mend(name, wanted))
        if version and named:
            say(NOTE, name, f'{named} installs the same {module}')
    return missing


# What loads


def run_probe(probe: Probe, futures: dict[str, Future]) -> dict[str, str]:
    """What a probe found; or its 'error'; or 'skipped', with the probe that it needs."""
    for need in probe.needs:
        if futures[need].result().keys() & {'error', 'skipped'}:
            return {'skipped': need}
    command = [sys.executable, '-c', CHILD, probe.code]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return {'error': f'hangs: killed after {SECONDS} s'}
    said = ended.stderr.strip().splitlines() or ['']
    if ended.returncode < 0:
        return {'error': f'crashes with {signal.Signals(-ended.returncode).name}'}
    if ended.returncode == 1 and said[-1]:
        return {'error': said[-1]}
    try:
        return json.loads(ended.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {'error': f'ends the process with exit code {ended.returncode} {said[-1]}'.strip()}


def check_loading(needs: dict[str, Any], missing: set[str]) -> dict[str, dict[str, str]]:
    """What the packages do when they are used; gives what each probe found."""
    futures: dict[str, Future] = {}
    found = {}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for name, probe in PROBES.items():
            if probe.package in missing:  # as was said
                futures[name] = Future()
                futures[name].set_result({'skipped': ''})
            else:  # after those that it waits for, or few workers would wait for ever
                futures[name] = pool.submit(run_probe, probe, futures)
        for name, future in futures.items():
            found[name] = answer = future.result()
            if 'error' in answer:
                error = answer['error']
                say(BROKEN, name, error[:300], mend_error(PROBES[name], error, needs))
            elif 'skipped' not in answer:
                texts = [f'{key} {value}' for key, value in answer.items()]
                say(OK, name, '; '.join(texts) or 'loads')
            elif answer['skipped']:
                say(NOTE, name, f'not tried: it needs {answer["skipped"]}')
    return found


# Devices


def toolkits() -> list[str]:
    """The CUDA versions for which there are nvcc and headers, in the places of `make env`."""
    homes = [os.environ.get('CUDA_HOME'), os.environ.get('CUDA_PATH'), '/usr/local/cuda']
    paths = [None, *(f'{home}/bin' for home in homes if home)]
    versions = []
    for nvcc in filter(None, (shutil.which('nvcc', path=path) for path in paths)):
        if Path(nvcc).resolve().parents[1].joinpath('include', 'cuda_runtime.h').exists():
            said = subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout
            versions += re.findall(r'release (\d+\.\d+)', said)
    return versions


def check_gpus(torch: dict[str, str], mmcv: dict[str, str], wanted: object) -> None:
    """Whether mmcv's ops run where torch does; the arguments are what the probes found."""
    cuda, built = torch.get('CUDA', 'none'), mmcv.get('built with CUDA', '')
    major = cuda.partition('.')[0]
    if 'GPU' not in torch or not built:
        return  # torch or mmcv does not load, as was said
    if torch['GPU'] == 'none':
        say(NOTE, 'GPU', 'torch sees none: everything runs on the CPU')
    elif built.partition('.')[0] != major:
        fix = mend('mmcv', wanted)
        found = toolkits()
        if major not in [version.partition('.')[0] for version in found]:
            has = ', '.join(found) or 'none'
            fix = f'install nvcc of CUDA {major} (here: {has}), set CUDA_HOME to it; then {fix}'
        text = 'has CPU ops alone, so detection runs on the CPU'
        if built != 'none':
            text = f'was built with CUDA {built}, torch with {cuda}'
        say(WARN, 'GPU', f'mmcv {text}', fix)
    else:
        say(OK, 'GPU', f'torch and mmcv have CUDA {major}')


# Data sets


def lacks(folder: Path, parts: dict[str, int]) -> list[str]:
    """What a data set lacks, as texts; empty if it is complete."""
    if not parts:
        try:
            files = json.loads((folder / 'manifest.json').read_text())['files']
        except (OSError, ValueError, KeyError, TypeError):
            return ['no manifest.json']
        have = sum(path.is_file() for path in folder.rglob('*'))
        return [] if have >= files else [f'{have} of {files} files']
    texts = []
    for pattern, published in parts.items():
        listed = folder / 'meta' / f'{pattern.partition("/")[0]}.txt'
        # with such a list, mmpretrain needs no folder a class
        files = pattern.replace('/*/', '/**/') if listed.is_file() else pattern
        have = sum(1 for _ in glob.iglob(files, root_dir=folder, recursive=True))
        if have < published:
            texts.append(f'{have} of {published} {pattern}')
    return texts


def check_data(root: Path) -> None:
    for name, (place, parts) in DATA.items():
        folder, fix = root / place, "see docs/guide/data.md in mmparc's repository"
        if not parts:
            words = [sys.executable, '-m', 'mmparc', 'make_tiny_data', '--out', str(root / 'tiny')]
            fix = shlex.join(words)
        if not glob.glob('*', root_dir=folder):
            say(NOTE, name, f'not in {folder}', fix)
        elif texts := lacks(folder, parts):
            fix = fix if parts else f'rm -r {shlex.quote(str(folder))} && {fix}'
            say(WARN, name, f'incomplete in {folder}: {"; ".join(texts)}', fix)
        else:
            say(OK, name, f'complete in {folder}')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0] + '.')
    parser.add_argument('--data-root', type=Path, default=Path('data'), help='default: data')
    args = parser.parse_args()
    print('Versions')
    needs = requirements()
    missing = check_packages(needs)
    print('\nWhat loads (this takes up to a minute)', flush=True)
    found = check_loading(needs, missing)
    check_gpus(found['torch'], found['mmcv.ops'], needs.get('mmcv') or '')
    print(f'\nData sets in {args.data_root}', flush=True)
    check_data(args.data_root)
    print('\n' + ', '.join(f'{marks[mark]} {mark}' for mark in (BROKEN, WARN, NOTE, OK)))
    return int(marks[BROKEN] > 0)


if __name__ == '__main__':
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader may have seen enough
    sys.exit(main())
