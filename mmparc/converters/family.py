"""What a family of models tells the converter, and what the families share.

A family is a module with two functions: ``backbone_config`` reads the backbone's config from the
shapes in a reference state dict, and ``official_name`` translates the name of one of our parameters
(or ``official_names`` all of them, where one name alone does not tell).
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

StateDict = Mapping[str, Tensor]

# The published code names what belongs to one axis ..._H or ..._W, with or without more behind it.
_AXIS = re.compile(r'_([HW])(\.|$)')


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one family of models are read and written.

    Args:
        backbone_config: from a reference state dict to the config of mmparc's backbone; a
            ValueError where it cannot be read.
        official_names: from our parameters' names ('backbone.', 'head.fc.') to the reference's.
        copies: prefixes under which the reference's state dict holds a second copy of a module,
            to the module's own prefix.
    """

    backbone_config: Callable[[StateDict], dict]
    official_names: Callable[[Iterable[str]], dict[str, str]]
    copies: Mapping[str, str] = field(default_factory=dict)


def one_by_one(official_name: Callable[[str], str]) -> Callable[[Iterable[str]], dict[str, str]]:
    """``official_names`` from a function of one name."""
    return lambda names: {name: official_name(name) for name in names}


def renamed(name: str, rules: Iterable[tuple[str, str | Callable[[re.Match], str]]]) -> str:
    """Apply substitutions, patterns and replacements of ``re.sub``, in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def axis_of(official_name: str) -> str | None:
    """'H' or 'W' for a ParC kernel, bias or embedding of the reference, else None."""
    match = _AXIS.search(official_name)
    return match and match[1]


@dataclass
class Stages:
    """What the names and shapes of a reference state dict say about its stages, from 0.

    Args:
        depths: blocks of each stage.
        parc_starts: index of each stage's first ParC block, or the depth.
        kernels: for each stage with ParC the lengths along H and along W.
    """

    depths: tuple[int, ...]
    parc_starts: tuple[int, ...]
    kernels: dict[int, tuple[int, int]]

    def placement(self, strides: Iterable[int]) -> dict:
        """``parc_starts`` and ``img_size`` for a backbone whose stages have these total strides."""
        return dict(parc_starts=self.parc_starts, **self.img_size(strides))

    def img_size(self, strides: Iterable[int]) -> dict:
        """``img_size`` alone: one number, or (height, width) where they differ.

        Of the image sizes that give these kernels it is the multiple of the first ParC stage's
        stride; without a kernel there is none, for the backbone's default.
        """
        if not self.kernels:
            return {}
        stage = min(self.kernels)
        height, width = (length * list(strides)[stage] for length in self.kernels[stage])
        return dict(img_size=height if height == width else (height, width))


def read_stages(state_dict: StateDict, block_of: Callable[[str], tuple[int, int] | None]) -> Stages:
    """Read depths and ParC blocks.

    Args:
        state_dict: of the reference.
        block_of: from a name to (stage, block), both from 0, or None outside all blocks.

    Raises:
        ValueError: if there is not at least one block in each stage up to the last.
    """
    blocks: dict[int, set[int]] = {}
    parc: dict[int, set[int]] = {}
    kernels: dict[int, dict[str, int]] = {}
    for name, value in state_dict.items():
        if (at := block_of(name)) is None:
            continue
        stage, block = at
        blocks.setdefault(stage, set()).add(block)
        if axis := axis_of(name):
            parc.setdefault(stage, set()).add(block)
            if value.dim() == 4:  # a kernel or an embedding, whose last two sizes are K and 1
                kernels.setdefault(stage, {}).setdefault(axis, math.prod(value.shape[2:]))
    if not blocks or set(blocks) != set(range(max(blocks) + 1)):
        raise ValueError('it has no such blocks' if not blocks else 'a stage has no blocks')
    depths = tuple(max(blocks[stage]) + 1 for stage in sorted(blocks))
    return Stages(
        depths,
        tuple(min(parc.get(stage, {depth})) for stage, depth in enumerate(depths)),
        {
            stage: (found.get('H') or found['W'], found.get('W') or found['H'])
            for stage, found in kernels.items()
        },
    )


def size_of(state_dict: StateDict, name: str, axis: int) -> int:
    """One size of the tensor of that name.

    Raises:
        ValueError: if there is no such tensor.
    """
    if name not in state_dict or state_dict[name].dim() <= axis:
        raise ValueError(f"it has no '{name}' to tell its widths")
    return state_dict[name].shape[axis]
