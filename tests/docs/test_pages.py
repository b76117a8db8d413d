"""README.md and docs/guide do what they say; tests/pages.py runs them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, assert_close, tool_environment
from pages import Tree, blocks_of, build, commands_of, local_links, missing_files

from mmparc.datasets import DEFAULTS
from mmparc.ops import parc_reference

GUIDE = ROOT / 'docs/guide'
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in GUIDE.glob('*.md')}
PAGES = {'README.md': (ROOT / 'README.md').read_text(), **dict(sorted(PAGES.items()))}
README = PAGES['README.md']
INDEX = 'docs/guide/README.md'
# The page that `make test` runs; `make test-full` runs all.
RUN = 'docs/guide/data.md'
BROKEN = [
    '```bash\npython tools/train.py configs/no_such.py\n```',  # a command that fails
    '```bash\nvim config.py\n```',  # and one that no test knows
    '```python\nassert False\n```',
    "```python\n# a.py\n_base_ = './no_such.py'\n```",
    '```python\n# a.py\n```\n\n```python a.py\nx = 2\n```',  # another file
    "```python\nprint('one')\n```\n\n```text\ntwo\n```",
    '```sh\ntrue\n```',  # no test knows the language
    '```bash\npython tools/train.py',  # a block that does not end
]


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp('tree'))


def test_links_and_commands_lead_somewhere() -> None:
    for name, page in PAGES.items():
        folder = (ROOT / name).parent
        assert [link for link in local_links(page) if not (folder / link).exists()] == [], name
        assert missing_files(page) == [], name
    listed = [link for link in local_links(PAGES[INDEX]) if link.endswith('.md')]
    pages = {Path(name).name for name in PAGES if name.startswith('docs/guide/')}
    assert sorted(listed) == sorted(pages - {'README.md'})
    assert len(local_links(README)) > 2 and len(commands_of(README)) > 10
    # the control
    assert len(missing_files('```bash\nmake all-of-it\npython tools/no.py configs/no.py\n```')) == 3


@pytest.mark.parametrize(
    'name',
    [pytest.param(n, marks=() if n == RUN else pytest.mark.full) for n in PAGES if n != INDEX],
)
def test_page(name: str, tree: Tree) -> None:
    """Each page stands alone; a later one may find what an earlier one made."""
    tree.run_page(PAGES[name])
    made = {
        path.relative_to(tree.folder).as_posix() for path in tree.folder.glob('work_dirs/**/*.*')
    }
    if name == 'README.md':
        assert set(tree.trained.values()) <= made
        assert any(path.startswith('work_dirs/predictions/') for path in made)
        assert any(path.endswith('curves.png') for path in made)
    if name.endswith('inference.md'):
        mine = {path for path in made if path.startswith('work_dirs/mine/')}
        assert len(mine) == 5 and sum('/vis/' in path for path in mine) == 2


def test_broken_pages_fail(tree: Tree) -> None:
    for page in BROKEN:
        with pytest.raises((AssertionError, FileNotFoundError)):
            tree.run_page(page)


def test_python_of_the_readme(tmp_path: Path) -> None:
    config, operator, surgery = [text for kind, text in blocks_of(README) if kind == 'python']
    (tmp_path / 'mine.py').write_text(config)
    build(tmp_path / 'mine.py')
    names: dict = {}
    exec(surgery, names)
    assert names['logits'].shape == (1, 1000)
    exec(operator, names)
    x, kernel, y = (names[name] for name in 'x kernel y'.split())
    assert_close(y, parc_reference(x.double(), kernel.double(), axis='h', groups=96), 1e-5)
    with pytest.raises(AssertionError):  # the control
        assert_close(y, parc_reference(x, kernel.roll(1, dims=-1), axis='h', groups=96), 1e-5)


@pytest.mark.full
def test_demo(tree: Tree) -> None:
    """What `make demo` runs once the environment is there, with 50 steps of training."""
    shorter = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=4']
    result = subprocess.run(
        ['tools/demo.sh', '--cfg-options', *shorter, 'train_dataloader.dataset.indices=200'],
        cwd=tree.folder,
        env={**tool_environment(), 'PYTHON': sys.executable, 'SEED': '3'},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    told = dict(
        re.findall(r'^(box AP50|checkpoint|predictions|curves|data) +(\S+)', result.stdout, re.M)
    )
    assert 0 <= float(told.pop('box AP50')) <= 1
    assert len(told) == 4
    assert all((tree.folder / path).exists() for path in told.values())
    assert len(list((tree.folder / told['predictions']).iterdir())) == DEFAULTS['det'].val
