"""Pages of the documentation: what stands on them, and a tree in which their commands run.

Commands run as they stand, but for what makes them shorter: fewer images, one epoch or two steps of
training, a smaller image to count multiply-adds for, one length to time backends for, exports that
are timed for a moment, two sizes of images to test at, and of the runs of a table a list alone.
Checkpoints are named after the length of training, so that their names are shortened with it
wherever they stand.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from helpers import ROOT, run_tool, tool_environment
from mmengine.config import Config

from mmparc.engine.config import TASKS

FEW = ['--train', '16', '--val', '8']
SHORT = ['--cfg-options', 'train_dataloader.batch_size=8']
SMALL = ['--shape', '128', '160']
QUICK = ['--lengths', '14', '--seconds', '0']
UNTIMED = ['--seconds', '0']
SAY_ONLY = ['--dry-run']
TWO = ['--sizes', '64', '96']


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', page, re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[str]:
    return [line for line in block.splitlines() if line.strip()]


def local_links(page: str) -> list[str]:
    """The files that a page links to, relative to it."""
    links = re.findall(r'\]\(([^)\s]+)\)', page)
    return [link.partition('#')[0] for link in links if '://' not in link]


def run_distributed(command: str, folder: Path) -> list[str]:
    """Run `tools/dist_train.sh ...`, which must come as far as the missing data; its options.

    A torchrun that writes its arguments down stands in for the real one; then the tool runs without
    a launcher, with the data sets far away and without what needs a GPU or weights.

    Args:
        command: as it stands.
        folder: for files, and where the tool runs.
    """
    torchrun, called = folder / 'torchrun', folder / 'called'
    torchrun.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {called}\n')
    torchrun.chmod(0o755)
    environment = tool_environment()
    environment['PATH'] = f'{folder}:{environment["PATH"]}'
    subprocess.run(shlex.split(command), cwd=ROOT, env=environment, check=True)
    args = called.read_text().splitlines()
    assert f'--nproc_per_node={shlex.split(command)[2]}' in args
    script = next(i for i, arg in enumerate(args) if not arg.startswith('--'))
    tool, config, *options = args[script:]
    assert options[:2] == ['--launcher', 'pytorch']
    appended = [] if '--cfg-options' in options else ['--cfg-options']
    result = run_tool(
        ROOT / tool,
        ROOT / config,
        *('--no-pretrained', '--no-amp', *options[2:]),
        *(*appended, 'data_root=no/such/place'),
        cwd=folder,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stderr.startswith("error: there is no data root 'no/such/place")
    return options[2:]


class Tree:
    """A copy of a checkout, where commands run one after the other.

    Attributes:
        folder: where it is.
        trained: {checkpoint's name on the page: its name after the shortened training}
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trained: dict[str, str] = {}
        for name in ('configs', 'mmparc', 'tools'):
            leave = shutil.ignore_patterns('__pycache__')
            shutil.copytree(ROOT / name, folder / name, ignore=leave)

    def shortened(self, text: str) -> str:
        for long, short in self.trained.items():
            text = text.replace(long, short)
        return text

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run `python SCRIPT ...` or `python -m MODULE ...`; fail where it does."""
        python, *words = shlex.split(self.shortened(command))
        assert python == 'python', f'no test knows how to run: {command}'
        first = 1 + words.index('-m') if '-m' in words else 0
        if words[first] == 'mmparc':
            first += 1
        script, args = words[first], words[first + 1 :]
        more = self._shorter(Path(script).stem, args)
        if first:
            result = subprocess.run(
                [sys.executable, *words, *more],
                cwd=self.folder,
                env=tool_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
            )
        else:
            result = run_tool(self.folder / script, *args, *more, cwd=self.folder)
        said = f'{command}\n{result.stdout[-2000:]}{result.stderr[-4000:]}'
        assert result.returncode == 0, said
        return result

    def _shorter(self, tool: str, args: list[str]) -> list[str]:
        if tool == 'make_toy_data':
            return FEW
        if tool == 'swap_backbone':
            return SMALL
        if tool == 'measure_backends':
            return QUICK
        if tool == 'reproduce':
            return SAY_ONLY
        if tool == 'plot' and args[0] == 'sizes':
            return TWO
        if tool in ('export_onnx', 'test'):
            made = args[1] in ('none', *self.trained.values())
            assert made, f'{args[1]} is asked for, but was not made'
        if tool == 'export_onnx':
            return UNTIMED
        if tool != 'train':
            return []
        cfg = Config.fromfile(self.folder / args[0], import_custom_modules=False)
        unit, value = ('epoch', 1) if 'max_epochs' in cfg.train_cfg else ('iter', 2)
        full = cfg.train_cfg[f'max_{unit}s']
        folder = f'work_dirs/{TASKS[cfg.default_scope]}/{Path(args[0]).stem}'
        self.trained[f'{folder}/{unit}_{full}.pth'] = f'{folder}/{unit}_{value}.pth'
        return [*SHORT, f'train_cfg.max_{unit}s={value}']
