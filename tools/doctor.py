#!/usr/bin/env python3
"""Checks packages, devices and data sets, and prints a fix for each problem."""

import argparse
import glob
import re
import signal
import subprocess
import sys
from importlib import metadata
from operator import eq, ge, gt, le, lt, ne

PIP = f'"{sys.executable}" -m pip'
VERSIONS = {str(d.name).lower(): d.version for d in reversed([*metadata.distributions()])}
APT = {'libGL.so': 'libgl1', 'libgthread-2.0.so': 'libglib2.0-0', 'libxcb.so': 'libxcb1'}
COMPARE = {'<': lt, '<=': le, '>': gt, '>=': ge, '==': eq, '!=': ne}
said = []  # marks (ok; note; warn: gets in the way; BROKEN: needed but does not work) and names
# Probes set `mark`, `text`, `fix` for the report, `torch`, `devices` for later ones, `nms` for NMS.
TORCH = """
import os, subprocess, torch
devices = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
text = f'CUDA {torch.version.cuda}; devices: {", ".join(devices)}'
if devices == ['cpu']:
    cuda, gpu = torch.version.cuda, subprocess.getoutput('nvidia-smi -L').startswith('GPU ')
    mark = 'warn' if gpu and os.environ.get('CUDA_VISIBLE_DEVICES') not in ('', '-1') else 'note'
    fix = f'update the NVIDIA driver: this torch needs CUDA {cuda}' if cuda else ''
"""
PARC = """
from mmparc.ops import BACKENDS, parc, parc_reference
operands = [torch.rand(shape).double() for shape in [(2, 6, 13, 10), (6, 1, 7), (6,), (6, 7)]]
for axis, device, backend in [(a, d, b) for a in 'hw' for d in devices for b in BACKENDS]:
    y = parc(*[t.to(device) for t in operands], axis=axis, groups=6, backend=backend).cpu()
    right = parc_reference(*operands, axis=axis, groups=6)
    torch.allclose(y, right, rtol=2e-7) or sys.exit(f'{backend} on {device} is wrong')
text = f'{", ".join(BACKENDS)} are right on {", ".join(devices)}'
"""
MMCV = """
import mmcv.ops
text, nms = "mmparc's operators, on torchvision", lambda *args: mmcv.ops.nms(*args)[1]
if not sys.modules['mmcv._ext'].__file__.endswith('mmcv_ops.py'):
    text = f'compiled operators, CUDA {mmcv.ops.get_compiling_cuda_version()}'
if 'not available' in text and devices[1:]:
    mark, devices = 'warn', ['cpu']
"""
NMS = """
boxes = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 3], [9, 9, 12, 12]]).float()  # 0 and 1 overlap
for device in devices:
    kept = nms(boxes.to(device), torch.tensor([0.5, 0.9, 0.7]).to(device), 0.5).tolist()
    kept == [1, 2] or sys.exit(f'nms on {device} keeps boxes {kept}, not [1, 2]')
text += f'; nms is right on {", ".join(devices)}'
"""
PROBES = {  # distributions that install the same folder: code that fails if it does not work
    'torch': TORCH,
    'numpy': 'import numpy; torch.from_numpy(numpy.ones(1))',
    'mmparc': PARC,
    'torchvision': 'from torchvision.ops import nms\ntext = "loads"' + NMS,
    'opencv-python opencv-python-headless': 'import cv2',
    'setuptools': 'import pkg_resources',
    'mmengine onedl-mmengine': 'import mmengine.runner',
    'mmcv-lite mmcv onedl-mmcv': MMCV + NMS,
    'mmpretrain onedl-mmpretrain': 'import mmpretrain.apis, mmparc.models',
    'mmsegmentation onedl-mmsegmentation': 'import mmseg.apis, mmseg.utils',
    'pycocotools': 'import pycocotools.mask',
    'mmdet onedl-mmdetection': 'import mmdet.apis',
}
INSTALLED = {k.split()[0]: [name for name in k.split() if name in VERSIONS] for k in PROBES}
DATA = {  # files below the data root, and how many were published
    'imagenet': {'train/**/*.*': 1_281_167, 'val/**/*.*': 50_000},
    'coco': {'train2017/*.jpg': 118_287, 'val2017/*.jpg': 5_000, 'annotations/instances_*.json': 2},
    'ade/ADEChallengeData2016': {'images/*/*.jpg': 22_210, 'annotations/*/*.png': 22_210},
    'VOCdevkit/VOC2012': {'JPEGImages/*': 17_125, 'SegmentationClass*/*': 14_268, '*/*/aug.txt': 1},
    **{f'toy/{task}': {'manifest.json': 1} for task in ('cls', 'det', 'seg')},
}


def say(mark: str, name: str, text: str, fix: str = '') -> None:
    said.append((mark, name))
    print(f'  {mark:<8}{name:<18} {text}' + (f'\n{"":10}fix: {fix}' if fix else ''), flush=True)


def numbers(version: str) -> list[int]:  # of 2.1+cu118: [2, 1, 0]
    return [*map(int, re.findall(r'\b\d+', version.partition('+')[0])), 0, 0][:3]


def check_versions() -> None:
    if 'mmparc' not in VERSIONS:
        return say('BROKEN', 'mmparc', 'not installed here', 'make env && . .venv/bin/activate')
    lines = '\n'.join(['numpy', *(metadata.requires('mmparc') or [])])
    row = r'^([\w.-]+)([^;\s]*)(?: *; extra == .(?!dev|onedl)(\w+).)?$'
    for name, wanted, extra in re.findall(row, lines, re.M):
        here = INSTALLED.get(name, [name] if name in VERSIONS else [])
        text = ' and '.join(f'{other} {VERSIONS[other]}' for other in here) or 'not installed'
        bounds = [] if 'onedl' in text else re.findall('([<>=!]=?)([0-9.]+)', wanted)
        right = here and all(COMPARE[s](numbers(VERSIONS[here[0]]), numbers(n)) for s, n in bounds)
        if len(here) > 1 and name != 'opencv-python':
            right, text = False, f'{text} overwrite each other'
        mark = 'ok' if right else 'BROKEN' if extra in ('', 'mm') else 'note'
        pip = f'{PIP} uninstall -y {" ".join(here)} && {PIP}' if here else PIP
        say(mark, name, f'{text:<24} {wanted}', '' if right else f"{pip} install '{name}{wanted}'")


def fix_for(name: str, log: str = '') -> str:
    if library := next((library for library in APT if library in log), ''):
        return f'sudo apt-get update && sudo apt-get install -y {APT[library]}'
    again = {'mmcv': "'mmcv-lite<2.2'", 'torchvision': f'torchvision torch=={VERSIONS["torch"]}'}
    again = again.get(name, f'{name}=={VERSIONS[name]}').partition('+')[0]  # PyPI has no +cu130
    option = '--no-cache-dir ' if name == 'onedl-mmcv' else ''  # the cache may have it compiled
    return f'{PIP} uninstall -y {name} && {PIP} install {option}{again}'


def check_loading() -> None:
    todo, code = [], 'import signal, sys; signal.alarm(300); sys.path = [*filter(None, sys.path)]\n'
    for (name, here), probe in zip(INSTALLED.items(), PROBES.values()):
        if not here or ('BROKEN', name) in said:
            break
        todo += here[:1]
        code += f'mark, text, fix = "ok", "", ""\n{probe}\nprint("\\n", mark, text, fix, sep="@")\n'
    ended = subprocess.run([sys.executable, '-uc', code], capture_output=True, errors='replace')
    passed = re.findall('^@(ok|note|warn)@(.*)@(.*)$', ended.stdout, re.M)
    for name, (mark, text, fix) in zip(todo, passed):
        say(mark, name, text or 'loads', (fix or fix_for(name)) if mark == 'warn' else '')
    for name in todo[len(passed) :][:1]:
        died = subprocess.CalledProcessError(ended.returncode, f'import {name} within 300 s')
        error = ended.stderr.strip().rpartition('\n')[2] if ended.returncode == 1 else str(died)
        say('BROKEN', name, error[:300], fix_for(name, ended.stderr))
    if after := [*INSTALLED][len(passed) + 1 :]:
        say('note', 'not tried', ', '.join(after))


def check_data(root: str) -> None:
    for place, parts in DATA.items():
        for manifest in glob.glob(f'{root}/{place}/manifest.json'):
            parts = {'**/*.*': int(re.search(r'"files": (\d+)', open(manifest).read())[1])}
        have = {p: len(glob.glob(f'{root}/{place}/{p}', recursive=True)) for p in parts}
        lacks = [f'{have[p]} of {parts[p]} {p}' for p in parts if have[p] < parts[p]]
        mark = 'ok' if not lacks else 'warn' if any(have.values()) else 'note'
        say(mark, place, ', '.join(lacks) or 'complete', 'see docs/guide/data.md' if lacks else '')


if __name__ == '__main__':
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader may have seen enough
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data-root', default='data', help='default: data')
    args = parser.parse_args()
    say('ok', 'Python', f'{sys.version.split()[0]} ({sys.executable})')
    check_versions()
    check_loading()
    check_data(args.data_root)
    print(*(f'{sum(m == mark for m, _ in said)} {mark}' for mark in ('BROKEN', 'warn')), sep=', ')
    sys.exit('BROKEN' in dict(said))
