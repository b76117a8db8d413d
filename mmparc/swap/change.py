"""One swap of a backbone: the changed config, with a reason for each change, also as a file."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config, ConfigDict

from .features import Features
from .fragments import Fragment

Key = tuple[str | int, ...]
WIDTH = 100


@dataclass
class Swap:
    """One backbone for another, in the model at ``key`` of a config that is being changed.

    Attributes:
        cfg: the config with the changes made so far.
        reasons: {key: why it changed}. A config can replace a list only as a whole, so that a
            change inside of one counts as the list's.
        replaced: the keys whose dict has been replaced and not merged.
    """

    cfg: Config
    key: Key
    name: str
    fragment: Fragment
    pretrained: str | None
    old_settings: ConfigDict
    old: Features
    settings: ConfigDict
    new: Features
    reasons: dict[Key, list[str]] = field(default_factory=dict)
    replaced: set[Key] = field(default_factory=set)

    @property
    def scope(self) -> str:
        return self.cfg.default_scope

    @property
    def old_name(self) -> str:
        return short_name(self.old_settings)

    def get(self, *key: str | int) -> Any:
        """A value of the model, None where there is none."""
        return lookup(self.cfg, (*self.key, *key))

    def set(self, *key: str | int, value: Any, why: str) -> None:
        """Change a value of the model."""
        self.set_in_config((*self.key, *key), value, why)

    def set_in_config(self, key: Key, value: Any, why: str) -> None:
        """Change a value of the config; a dict replaces all that was there."""
        parent = lookup(self.cfg, key[:-1])
        if isinstance(value, dict):
            value = ConfigDict(value)
            if key[-1] in parent:
                self.replaced.add(key)
        parent[key[-1]] = value
        inside = next((i for i, part in enumerate(key) if isinstance(part, int)), len(key))
        reasons = self.reasons.setdefault(key[:inside], [])
        if why not in reasons:
            reasons.append(why)


def lookup(node: Any, key: Key) -> Any:
    """A nested value, None where there is none."""
    for part in key:
        present = part in node if isinstance(part, str) else part < len(node)
        if not present:
            return None
        node = node[part]
    return node


def short_name(backbone: dict) -> str:
    """'ResNet (depth=50)': a backbone's type, with the setting that names its variant."""
    for key in ('depth', 'arch', 'model_name', 'variant'):
        if isinstance(backbone.get(key), str | int):
            return f'{backbone["type"]} ({key}={backbone[key]})'
    return backbone['type']


def listed(numbers: Sequence[int]) -> str:
    """'4, 8 and 16'"""
    *most, last = map(str, numbers)
    return f'{", ".join(most)} and {last}' if most else last


def config_text(swap: Swap, base: str, title: str) -> str:
    """A config that inherits ``base``, a path or an upstream name, each change below its reason."""
    tree: dict = {}
    for key in swap.reasons:
        node = tree
        for part in key[:-1]:
            node = node.setdefault(part, {})
        value = lookup(swap.cfg, key)
        node[key[-1]] = ConfigDict(_delete_=True, **value) if key in swap.replaced else value
    parts = [
        '\n'.join(_entry((name,), f'{name} = ', value, swap.reasons, '', ''))
        for name, value in tree.items()
    ]
    return f'"""{title}"""\n\n_base_ = {base!r}\n\n' + '\n'.join(parts) + '\n'


def _entry(key: Key, lead: str, value: Any, reasons: dict, pad: str, end: str) -> list[str]:
    """The lines of one entry, below its reasons; in one line where it fits and holds no reasons."""
    lines = []
    for why in reasons.get(key, []):
        # whole addresses of checkpoints
        unbroken = dict(break_long_words=False, break_on_hyphens=False)
        lines += textwrap.wrap(f'# {why}', WIDTH - len(pad), subsequent_indent='# ', **unbroken)
    lines = [pad + line for line in lines]
    has_reasons = any(other[: len(key)] == key and other != key for other in reasons)
    flat = f'{pad}{lead}{_flat(value)}{end}'
    if not isinstance(value, dict | list | tuple) or not value:
        return [*lines, flat]
    if len(flat) <= WIDTH and not has_reasons:
        return [*lines, flat]
    opening, closing, entries = _parts(value)
    lines.append(f'{pad}{lead}{opening}')
    for name, (child_lead, child) in zip(_names(value), entries):
        lines += _entry((*key, name), child_lead, child, reasons, pad + '    ', ',')
    return [*lines, f'{pad}{closing}{end}']


def _names(value: dict | list | tuple) -> Sequence:
    return list(value) if isinstance(value, dict) else range(len(value))


def _parts(value: dict | list | tuple) -> tuple[str, str, list[tuple[str, Any]]]:
    """The brackets of a container, and its entries with what stands before each."""
    if not isinstance(value, dict):
        opening, closing = '()' if isinstance(value, tuple) else '[]'
        return opening, closing, [('', child) for child in value]
    if all(isinstance(name, str) and name.isidentifier() for name in value):
        return 'dict(', ')', [(f'{name}=', child) for name, child in value.items()]
    return '{', '}', [(f'{name!r}: ', child) for name, child in value.items()]


def _flat(value: Any) -> str:
    if not isinstance(value, dict | list | tuple):
        return repr(value)
    opening, closing, entries = _parts(value)
    inside = ', '.join(f'{name}{_flat(child)}' for name, child in entries)
    comma = ',' if isinstance(value, tuple) and len(value) == 1 else ''
    return f'{opening}{inside}{comma}{closing}'
