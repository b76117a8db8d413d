"""Registers mmparc's layers, which know torch alone, in scope ``mmparc``."""

from mmparc.layers import ParCConv, ParCConv2d, ParCMixer
from mmparc.registry import MODELS

for layer in (ParCConv, ParCConv2d, ParCMixer):
    MODELS.register_module(module=layer)
