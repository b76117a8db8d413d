"""docs/guide does what it says: each page's blocks in order, in a copy of a checkout.

How a block is tested follows from what stands behind its three backticks:

- bash: its commands run, as tests/pages.py says, those for several GPUs as far as the data;
- python: with a file's name in a first comment it is saved there, and if it is a config that no
  command of the page takes, its model is built, and its data sets where they are on disk; without
  a name it runs as a script;
- python FILE: the file is there by now and holds exactly this;
- text: each of its lines is in what the last command or script said;
- nothing: no test, as for trees of folders.
"""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT, run_tool
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from pages import Tree, commands, local_links, run_distributed

from mmparc.engine.config import datasets_of

GUIDE = ROOT / 'docs/guide'
PAGES = {path.name: path.read_text() for path in sorted(GUIDE.glob('*.md'))}
INDEX = PAGES.pop('README.md')
FILE_NAME = re.compile(r'# (\S+\.py)\n')
# Data sets that are nowhere: the command must come as far as looking for them.
ELSEWHERE = '/path/to/coco'


def all_blocks(page: str) -> list[tuple[str, str]]:
    """(what stands behind the backticks, text) in order."""
    return re.findall(r'^```([^\n]*)\n(.*?)^```$', page, re.DOTALL | re.MULTILINE)


def run_page(page: str, tree: Tree) -> None:
    found = all_blocks(page)
    assert page.count('```') == 2 * len(found) > 0
    shell = [text for kind, text in found if kind == 'bash']
    said = ''
    for kind, text in found:
        language, _, file = kind.partition(' ')
        name = FILE_NAME.match(text)
        if kind == 'bash':
            for command in commands(text):
                said = run_command(command, tree)
        elif kind == 'python' and name:
            path = tree.folder / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(tree.shortened(text))
            if '_base_ = ' in text and not any(name[1] in block for block in shell):
                build(path)
        elif kind == 'python':
            (tree.folder / 'block.py').write_text(tree.shortened(text))
            said = run_command('python block.py', tree)
        elif language == 'python' and file:
            assert (tree.folder / file).read_text() == text
        elif kind == 'text':
            for line in text.splitlines():
                line = tree.shortened(line)
                assert ' '.join(line.split()) in said, f'{line} is not in\n{said[-4000:]}'
        else:
            assert kind == '', f'no test knows blocks of {kind}'


def run_command(command: str, tree: Tree) -> str:
    """What it said, in one line."""
    if ELSEWHERE in command and command.startswith('python tools/train.py '):
        result = run_tool(*shlex.split(command)[1:], '--no-pretrained', cwd=tree.folder)
        assert result.returncode == 1
        assert result.stderr.startswith(f"error: there is no data root '{ELSEWHERE}/'")
    elif command.startswith('tools/dist_train.sh '):
        run_distributed(command, tree.folder)
        return ''
    elif command.startswith('ln -s '):
        result = subprocess.run(
            shlex.split(command), cwd=tree.folder, check=True, capture_output=True, text=True
        )
    else:
        result = tree.run(command)
    return ' '.join((result.stdout + result.stderr).split())


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
                    dataset = DATASETS.build(settings)
                    assert len(dataset) > 0 and dataset[0] is not None


def test_index_lists_the_pages() -> None:
    listed = [link for link in local_links(INDEX) if link.endswith('.md')]
    assert sorted(listed) == sorted(PAGES)


@pytest.mark.parametrize('name', ['README.md', *PAGES])
def test_every_link_leads_somewhere(name: str) -> None:
    links = local_links((GUIDE / name).read_text())
    assert [link for link in links if not (GUIDE / link).exists()] == []


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp('guide'))


@pytest.mark.slow
@pytest.mark.parametrize('name', PAGES)
def test_page(name: str, tree: Tree) -> None:
    """Each page stands alone; what another made is found again."""
    run_page(PAGES[name], tree)
    if name == 'inference.md':
        mine = tree.folder / 'work_dirs/mine'
        made = {path.relative_to(mine).as_posix() for path in mine.rglob('*.*')}
        pictures = {'det/vis/000001000001.jpg', 'seg/vis/ADE_val_00000001.jpg'}
        assert pictures < made and len(made) == 5


BROKEN = {
    'a command that fails': '```bash\npython tools/train.py no_such.py\n```',
    'a command that no test knows': '```bash\nmake everything\n```',
    'a script that fails': '```python\nassert False\n```',
    'a config without its base': "```python\n# a.py\n_base_ = './no_such.py'\n```",
    'a file that says something else': '```python\n# a.py\n```\n\n```python a.py\nx = 2\n```',
    'words that nothing said': "```python\nprint('one')\n```\n\n```text\ntwo\n```",
    'a language that no test knows': '```sh\ntrue\n```',
    'a block that does not end': '```bash\npython tools/train.py',
}


@pytest.mark.slow
@pytest.mark.parametrize('page', BROKEN.values(), ids=BROKEN)
def test_a_broken_page_is_noticed(page: str, tree: Tree) -> None:
    with pytest.raises((AssertionError, FileNotFoundError)):
        run_page(page, tree)
    run_page("```python\nprint('one  two')\n```\n\n```text\none two\n```", tree)
