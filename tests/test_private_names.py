"""No private name of another package is used, but for those in private_names.txt.

Private names begin with one underscore. A file may use those that it or a module of mmparc defines;
``super()._x`` counts as another package's, and so does a method that replaces another package's.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

from helpers import ROOT
from torch.nn import Module

LISTED = Path(__file__).with_name('private_names.txt')
MOST = 10
# What namedtuple and os document.
PUBLIC = {'_replace', '_asdict', '_make', '_fields', '_exit'}
BY_STRING = {'getattr', 'setattr', 'hasattr', 'delattr', '__setattr__'}


def is_private(name: str) -> bool:
    return name.startswith('_') and not name.startswith('__') and name not in {'_', *PUBLIC}


def defined(tree: ast.AST) -> set[str]:
    """The functions, classes and variables of a file, and what it assigns to ``self``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ('self', 'cls'):
                found.add(node.attr)
    return found


def foreign(tree: ast.AST, own: set[str]) -> Iterator[tuple[int, str, str]]:
    """(line, private name, source) of each use of another package's private name."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Attribute):
            inherited = isinstance(node.value, ast.Call) and ast.unparse(node.value) == 'super()'
            names = [node.attr] if inherited or node.attr not in own else []
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            if called in BY_STRING:
                names = [text for text in texts if isinstance(text, str) and text not in own]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split('.')]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if not node.module.startswith('mmparc'):
                names = [*node.module.split('.'), *(alias.name for alias in node.names)]
        for name in filter(is_private, names):
            yield node.lineno, name, ast.unparse(node)


def used() -> dict[str, list[str]]:
    """{private name of another package: the places that use it}"""
    paths = [path for folder in ('mmparc', 'tools') for path in (ROOT / folder).rglob('*.py')]
    trees = {path: ast.parse(path.read_text()) for path in sorted(paths)}
    package = set().union(*(defined(tree) for path, tree in trees.items() if is_ours(path)))
    found: dict[str, list[str]] = {}
    for path, tree in trees.items():
        for line, name, source in foreign(tree, package | defined(tree)):
            place = f'{path.relative_to(ROOT)}:{line}: {source}'
            found.setdefault(name, []).append(place)
    return found


def replaced() -> dict[str, list[str]]:
    """{private method of another package's class: our classes that replace it}"""
    found: dict[str, list[str]] = {}
    for path in (ROOT / 'mmparc').rglob('*.py'):
        if path.stem.startswith('__'):
            continue
        module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        for kind in vars(importlib.import_module(module)).values():
            if inspect.isclass(kind) and kind.__module__ == module:
                for name in replacements(kind):
                    found.setdefault(name, []).append(f'{path.relative_to(ROOT)}: {kind.__name__}')
    return found


def replacements(kind: type) -> list[str]:
    bases = [base for base in kind.__mro__ if not base.__module__.startswith('mmparc')]
    own = [name for name, value in vars(kind).items() if is_private(name) and callable(value)]
    return [name for name in own if any(name in vars(base) for base in bases)]


def is_ours(path: Path) -> bool:
    return path.is_relative_to(ROOT / 'mmparc')


def listed() -> dict[str, str]:
    lines = [line for line in LISTED.read_text().splitlines() if line and line[0] != '#']
    return dict(line.split(maxsplit=1) for line in lines)


def test_private_names_are_listed() -> None:
    uses, reasons = {**replaced(), **used()}, listed()
    places = [place for name in sorted(uses.keys() - reasons.keys()) for place in uses[name]]
    assert not places, 'private names of other packages:\n' + '\n'.join(places)
    stale = reasons.keys() - uses.keys()
    assert not stale, f'nothing uses these of {LISTED.name}: {sorted(stale)}'
    assert len(reasons) <= MOST and all(reasons.values())


def test_private_names_are_found() -> None:
    """The control: one of each kind, beside what is no private name of another package."""
    planted = """
import torch._dynamo
from mmengine.config.utils import _get_cfg_metainfo
from mmparc.ops.fft import _plan
from ._own import name


class Hook(Base):
    def __init__(self):
        self._count = 0
        self.point._replace(x=1)

    def save(self, runner):
        super()._save()
        runner._hooks.clear()
        setattr(runner.loop, '_iter', self._count)

    def _save(self):
        pass
"""
    tree = ast.parse(planted)
    found = [name for _, name, _ in foreign(tree, defined(tree))]
    assert sorted(found) == ['_dynamo', '_get_cfg_metainfo', '_hooks', '_iter', '_save']
    module = type('Ours', (Module,), {'__module__': 'mmparc.x', '_apply': print, '_own': print})
    assert replacements(module) == ['_apply']
