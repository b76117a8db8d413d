"""Pages of the documentation, run block by block in a copy of a checkout.

What stands behind a block's three backticks says how it is tested:

- bash: its commands run, in shorter form (SHORTER), those for large data as far as the data;
- python: saved under the name in its first comment, if there is one; a config is built, unless a
  command of the page takes it; anything else runs as a script;
- python FILE: the file is there by now and holds exactly this;
- text: each of its lines is in what the last command or script printed;
- nothing: no test, as for trees of folders.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, run_tool, tool_environment
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmparc.engine.config import TASKS, datasets_of

# What is appended to a tool's command line.
SHORTER = {
    'make_toy_data': ['--train', '16', '--val', '8'],
    'swap_backbone': ['--shape', '128', '160'],
    'measure_backends': ['--lengths', '14', '--seconds', '0'],
    'reproduce': ['--dry-run'],
    'plot sizes': ['--sizes', '64', '96'],
    'export_onnx': ['--seconds', '0'],
}
AWAY = 'no/such/place'  # of data sets that are not here
FILE_NAME = re.compile(r'# (\S+\.py)\n')


def blocks_of(page: str) -> list[tuple[str, str]]:
    """(what stands behind the backticks, text) in order."""
    found = re.findall(r'^```([^\n]*)\n(.*?)^```$', page, re.DOTALL | re.MULTILINE)
    assert page.count('```') == 2 * len(found), 'a block does not end'
    return found


def commands_of(page: str) -> list[str]:
    texts = [text for kind, text in blocks_of(page) if kind == 'bash']
    return [line for text in texts for line in text.splitlines() if line.strip()]


def local_links(page: str) -> list[str]:
    """The files that a page links to, relative to it."""
    links = re.findall(r'\]\(([^)\s]+)\)', page)
    return [link.partition('#')[0] for link in links if '://' not in link]


def missing_files(page: str) -> list[str]:
    """The scripts, configs and targets of make that its commands name and that do not exist."""
    targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    saved = {m[1] for kind, text in blocks_of(page) if (m := FILE_NAME.match(text))}
    missing = []
    for command in commands_of(page):
        first, *words = shlex.split(command)
        if first == 'make':
            missing += [word for word in words if word not in targets]
        elif first == 'python' and words[0] != '-m':
            words = [w for w in words if w.startswith('configs/') or w == words[0]]
            missing += [w for w in words if not (ROOT / w).is_file() and w not in saved]
        elif first.startswith('tools/'):
            missing += [w for w in (first, words[0]) if not (ROOT / w).is_file()]
    return missing


def build(config: Path) -> None:
    """Build a config's model, and its data sets with their first items if they are on disk."""
    cfg = Config.fromfile(config)
    with (
        pytest.MonkeyPatch.context() as patch,
        DefaultScope.overwrite_default_scope(cfg.default_scope),
    ):
        patch.chdir(config.parent)
        MODELS.build(cfg.model)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            for settings in datasets_of(loader):
                if Path(settings.data_root).is_dir():
                    assert DATASETS.build(settings)[0] is not None


class Tree:
    """A copy of a checkout, where commands run one after the other.

    Checkpoints are named after the length of training, so that their names are shortened with it.

    Attributes:
        folder: where it is.
        trained: {checkpoint's name on the page: its name after the shorter training}
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

    def run_page(self, page: str) -> None:
        printed, page_commands = '', '\n'.join(commands_of(page))
        for kind, text in blocks_of(page):
            language, _, file = kind.partition(' ')
            name = FILE_NAME.match(text)
            if kind == 'bash':
                for command in filter(str.strip, text.splitlines()):
                    printed = self.run(command)
            elif kind == 'python':
                path = self.folder / (name[1] if name else 'block.py')
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.shortened(text))
                if '_base_ = ' in text and not (name and name[1] in page_commands):
                    build(path)
                elif not name:
                    printed = self.run('python block.py')
            elif language == 'python' and file:
                assert (self.folder / file).read_text() == text
            elif kind == 'text':
                for line in self.shortened(text).splitlines():
                    assert ' '.join(line.split()) in printed, f'{line} is not in\n{printed[-4000:]}'
            else:
                assert kind == '', f'no test knows blocks of {kind}'

    def run(self, command: str) -> str:
        """Run a command, which must succeed; what it printed, in one line."""
        first, *words = shlex.split(self.shortened(command))
        if first in ('make', 'pip', '.') or words[:2] == ['-m', 'mmparc']:
            return ''  # tests/install runs these
        options = dict(cwd=self.folder, env=tool_environment(), capture_output=True, text=True)
        if first == 'ln':
            result = subprocess.run([first, *words], **options)
        elif first == 'tools/dist_train.sh':  # without its processes
            return self._train_without_data([words[0], *words[2:]])
        else:
            assert first == 'python', f'no test knows how to run: {command}'
            script, *args = words
            if script == 'tools/train.py' and self._is_large(args[0]):
                return self._train_without_data(args)
            if script == '-m':
                result = subprocess.run([sys.executable, *words], **options)
            else:
                args += self._shorter(Path(script).stem, args)
                result = run_tool(self.folder / script, *args, cwd=self.folder)
        output = f'{command}\n{result.stdout[-2000:]}{result.stderr[-4000:]}'
        assert result.returncode == 0, output
        return ' '.join((result.stdout + result.stderr).split())

    def _is_large(self, config: str) -> bool:
        cfg = Config.fromfile(self.folder / config, import_custom_modules=False)
        return not all(
            (self.folder / settings.data_root).is_dir()
            for settings in datasets_of(cfg.train_dataloader)
        )

    def _train_without_data(self, args: list[str]) -> str:
        """Train with what needs no GPU or weights, which must come as far as the missing data."""
        more = [] if '--cfg-options' in args else ['--cfg-options']
        more.append(f'data_root={AWAY}')
        args = [args[0], '--no-pretrained', '--no-amp', *args[1:], *more]
        result = run_tool(self.folder / 'tools/train.py', *args, cwd=self.folder)
        assert result.returncode == 1, result.stdout + result.stderr
        (line,) = result.stderr.splitlines()
        assert line.startswith('error: ') and AWAY in line, line
        return ''

    def _shorter(self, tool: str, args: list[str]) -> list[str]:
        if tool in ('export_onnx', 'test'):
            made = args[1] in ('none', *self.trained.values())
            assert made, f'{args[1]} is asked for, but was not made'
        if tool == 'plot':
            return SHORTER.get(f'plot {args[0]}', [])
        if tool != 'train':
            return SHORTER.get(tool, [])
        cfg = Config.fromfile(self.folder / args[0], import_custom_modules=False)
        unit, value = ('epoch', 1) if 'max_epochs' in cfg.train_cfg else ('iter', 2)
        full = cfg.train_cfg[f'max_{unit}s']
        folder = f'work_dirs/{TASKS[cfg.default_scope]}/{Path(args[0]).stem}'
        self.trained[f'{folder}/{unit}_{full}.pth'] = f'{folder}/{unit}_{value}.pth'
        more = [] if '--cfg-options' in args else ['--cfg-options']
        return [*more, 'train_dataloader.batch_size=8', f'train_cfg.max_{unit}s={value}']
