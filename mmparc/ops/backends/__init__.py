"""The ways to compute a circular correlation. Each is a module with three functions:

prepare(taps, axis, groups) -> operand
    taps (C_out, C_in / groups, n), n being the map's size along the axis, to what is multiplied.
prepare_offset(offset, operand, axis, groups) -> Tensor
    (C_out, n) to what is added to the product.
correlate(input, operand, offset or None, axis, groups, out=None) -> Tensor
    (B, C_in, H, W) to (B, C_out, H, W). It may write its result into ``out``.
"""

from types import ModuleType

from . import direct, exported, fft, matmul

IMPLEMENTATIONS: dict[str, ModuleType] = dict(
    direct=direct,
    matmul=matmul,
    fft=fft,
    exported=exported,  # for torch.export alone, not to be chosen by a user
)
