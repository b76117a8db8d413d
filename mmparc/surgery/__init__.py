"""ParC inside any network of PyTorch: in place of its convolutions, or of its attention."""

from mmparc.layers.token_mixer import TokenMixer

from .attention import adopt, register_attention, register_feed_forward
from .parcify import parcify

__all__ = ['TokenMixer', 'adopt', 'parcify', 'register_attention', 'register_feed_forward']
