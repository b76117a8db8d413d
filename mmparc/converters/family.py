"""What a family of models tells the converter, and what the families share.

A family reads the backbone's config from the shapes in a reference state dict, and translates the
names of our parameters into the reference's.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

StateDict = Mapping[str, Tensor]
Rules = Sequence[tuple[str, str | Callable[[re.Match], str]]]

# The published code names what belongs to one axis ..._H or ..._W, with or without more behind it.
_AXIS = re.compile(r'_([HW])(\.|$)')


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one family of models are read and written.

    Args:
        backbone_config: from a reference state dict to the config of mmparc's backbone; raises
            ValueError where it cannot be read.
        rules: from our names ('backbone.', 'head.fc.') to the reference's, as patterns and
            replacements of ``re.sub`` in order.
        copies: prefixes under which the reference's state dict holds a second copy of a module,
            to the module's own prefix.
    """

    backbone_config: Callable[[StateDict], dict]
    rules: Rules
    copies: Mapping[str, str] = field(default_factory=dict)

    def official_names(self, names: Iterable[str]) -> dict[str, str]:
        """From each of our parameters' names to the reference's."""
        return {name: renamed(name, self.rules) for name in names}


def renamed(name: str, rules: Rules) -> str:
    """Apply substitutions in order."""
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

    def placement(self, strides: Sequence[int]) -> dict:
        """``parc_starts`` and ``img_size`` for a backbone whose stages have these total strides."""
        return dict(parc_starts=self.parc_starts, **self.img_size(strides))

    def img_size(self, strides: Sequence[int]) -> dict:
        """``img_size`` alone: one number, or (height, width) where they differ.

        Several sizes give the same kernels: this is the multiple of the first ParC stage's stride.
        Without a kernel it is left to the backbone's default.
        """
        if not self.kernels:
            return {}
        stage = min(self.kernels)
        height, width = (length * strides[stage] for length in self.kernels[stage])
        return dict(img_size=height if height == width else (height, width))


def by_pattern(pattern: str, first: int) -> Callable[[str], tuple[int, int] | None]:
    """A ``block_of`` from a pattern of stage, which counts from ``first``, and block."""

    def block_of(name: str) -> tuple[int, int] | None:
        match = re.match(pattern, name)
        return match and (int(match[1]) - first, int(match[2]))

    return block_of


def read_stages(state_dict: StateDict, block_of: Callable[[str], tuple[int, int] | None]) -> Stages:
    """Read depths and ParC blocks.

    Args:
        state_dict: of the reference.
        block_of: from a name to (stage, block), both from 0, or None outside all blocks.

    Raises:
        ValueError: if a stage before the last has no block.
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
        raise ValueError(f"it has no '{name}', which shows its widths")
    return state_dict[name].shape[axis]
