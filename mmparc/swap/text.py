"""A swap as a config file: what it inherits, and each change under the comment that explains it."""

import textwrap
from typing import Any

from .context import Swap
from .edit import Key

WIDTH = 100


def config_text(swap: Swap, base: str, title: str) -> str:
    """A config that makes the same of the one at ``base`` (a path or an upstream name)."""
    tree: dict = {}
    reasons = {}
    for key, value, why in swap.edit.overrides():
        node = tree
        for part in key[:-1]:
            node = node.setdefault(part, {})
        node[key[-1]] = value
        reasons[key] = why
    assignments = [
        _commented((name,), f'{name} = ', value, reasons, 0, '') for name, value in tree.items()
    ]
    return f'"""{title}"""\n\n_base_ = {base!r}\n\n' + '\n'.join(assignments) + '\n'


def _commented(
    key: Key, lead: str, value: Any, reasons: dict[Key, list[str]], indent: int, end: str
) -> str:
    """One entry in lines of its own, with its reasons above it."""
    pad = ' ' * indent
    lines = []
    for why in reasons.get(key, []):
        lead_in = f'{pad}# '
        lines += textwrap.wrap(
            why,
            WIDTH,
            initial_indent=lead_in,
            subsequent_indent=lead_in,
            break_long_words=False,  # checkpoints' addresses
            break_on_hyphens=False,
        )
    inside = [k for k in reasons if k[: len(key)] == key and len(k) > len(key)]
    flat = f'{pad}{lead}{_flat(value)}{end}'
    if inside:
        lines.append(f'{pad}{lead}dict(')
        for name, child in value.items():
            lines.append(_commented((*key, name), f'{name}=', child, reasons, indent + 4, ','))
        lines.append(f'{pad}){end}')
    elif len(flat) <= WIDTH or not isinstance(value, dict | list | tuple) or not value:
        lines.append(flat)
    else:
        opening, closing, entries = _parts(value)
        lines.append(f'{pad}{lead}{opening}')
        lines += [_commented((), name, child, {}, indent + 4, ',') for name, child in entries]
        lines.append(f'{pad}{closing}{end}')
    return '\n'.join(lines)


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
