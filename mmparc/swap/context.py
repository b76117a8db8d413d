"""One swap on its way through the package, and how its messages name things."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import ConfigDict

from .edit import Edit, Key
from .features import Features
from .fragments import Fragment


@dataclass
class Swap:
    """One backbone for another in the model at ``key`` of a config that is being edited."""

    edit: Edit
    key: Key
    name: str
    fragment: Fragment
    pretrained: str | None
    old_settings: ConfigDict
    old: Features
    settings: ConfigDict
    new: Features

    @property
    def scope(self) -> str:
        return self.edit.cfg.default_scope

    @property
    def old_name(self) -> str:
        return short_name(self.old_settings)

    def get(self, *key: str | int) -> Any:
        return self.edit.get((*self.key, *key))

    def set(self, *key: str | int, value: Any, why: str) -> None:
        self.edit.set((*self.key, *key), value, why)


def short_name(backbone: dict) -> str:
    """'ResNet (depth=50)': a backbone's type and what tells it from its siblings."""
    for key in ('depth', 'arch', 'model_name', 'variant'):
        if isinstance(backbone.get(key), str | int):
            return f'{backbone["type"]} ({key}={backbone[key]})'
    return backbone['type']


def listed(numbers: Sequence[int]) -> str:
    """'4, 8 and 16'"""
    *most, last = map(str, numbers)
    return f'{", ".join(most)} and {last}' if most else last
