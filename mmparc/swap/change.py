"""One swap of a backbone: the changed config, with a reason for each change, also as a file."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config, ConfigDict
from rich.pretty import pretty_repr

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
    """A config that inherits ``base``, a path or an upstream name, with the reasons of changes."""
    tree: dict = {}
    comments = []
    for key, reasons in swap.reasons.items():
        node = tree
        for part in key[:-1]:
            node = node.setdefault(part, {})
        value = lookup(swap.cfg, key)
        node[key[-1]] = ConfigDict(_delete_=True, **value) if key in swap.replaced else value
        comments += textwrap.wrap(
            f'# {".".join(key)}: {"; ".join(reasons)}',
            WIDTH,
            subsequent_indent='#     ',
            break_long_words=False,  # addresses of checkpoints
            break_on_hyphens=False,
        )
    changes = [
        f'{name} = {pretty_repr(_printable(value), max_width=WIDTH - len(name) - 3)}'
        for name, value in tree.items()
    ]
    changes = '\n'.join(changes)
    changes = re.sub(r'([^,\[({])(?=\n *[\])}])', r'\1,', changes)  # commas before closing brackets
    return '\n'.join([f'"""{title}"""', '', f'_base_ = {base!r}', '', *comments, changes, ''])


class Settings(dict):
    """A dict that rich prints as ``dict(key=value)``."""

    def __rich_repr__(self) -> Iterable[tuple[str, Any]]:
        yield from self.items()


Settings.__name__ = 'dict'


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        named = all(isinstance(name, str) and name.isidentifier() for name in value)
        kind = Settings if named else dict
        return kind({name: _printable(child) for name, child in value.items()})
    return type(value)(map(_printable, value)) if isinstance(value, list | tuple) else value
