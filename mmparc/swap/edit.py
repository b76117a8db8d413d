"""A config being changed, with a record of each change and its reason."""

import copy
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict

Key = tuple[str | int, ...]


class Edit:
    """A copy of ``cfg`` to be changed key by key.

    Attributes:
        cfg: the copy, with the changes made so far.
        reasons: {key: why}, in the order of the changes.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = copy.deepcopy(cfg)
        self.reasons: dict[Key, str] = {}
        self._replaced: set[Key] = set()

    def get(self, key: Key, default: Any = None) -> Any:
        node = self.cfg
        for part in key:
            present = part in node if isinstance(part, str) else part < len(node)
            if not present:
                return default
            node = node[part]
        return node

    def set(self, key: Key, value: Any, why: str) -> None:
        """Give a key a value; a dict takes the place of all that was there."""
        if isinstance(value, dict):
            value = ConfigDict(value)
            if self.get(key[:-1], {}).keys() & {key[-1]}:
                self._replaced.add(key)
        self.get(key[:-1])[key[-1]] = value
        self.reasons[key] = why

    def overrides(self) -> Iterator[tuple[Key, Any, list[str]]]:
        """(key, value, reasons) of what an inheriting config has to say.

        A config can take over a list as a whole only, so that a key inside of one stands for all
        of it. A value that takes the place of a dict holds ``_delete_``.
        """
        merged: dict[Key, list[str]] = {}
        for key, why in self.reasons.items():
            inside = next((i for i, part in enumerate(key) if isinstance(part, int)), len(key))
            reasons = merged.setdefault(key[:inside], [])
            if why not in reasons:
                reasons.append(why)
        for key, reasons in merged.items():
            value = self.get(key)
            if key in self._replaced:
                value = ConfigDict(_delete_=True, **value)
            yield key, value, reasons
