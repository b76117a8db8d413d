"""Resizes a checkpoint's kernels and embeddings to the lengths of the model's.

A model built for another ``img_size`` has kernels of other lengths. mmengine only logs a size
mismatch and leaves the parameter at its random value; here the saved one is resized.
"""

import logging

from torch import Tensor, nn

from mmparc.ops import resize_taps

logger = logging.getLogger(__name__)


class ResizedOnLoad(nn.Module):
    """A module that resizes some of its parameters along their last axis when it loads them."""

    def resized_on_load(self) -> dict[str, str]:
        """{parameter: rule}, see :func:`mmparc.ops.resize_taps`."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
        # A private name, but the one that torch and mmengine call; load hooks are public only from
        # torch 2.5 on. ``state_dict`` is the caller's copy of the user's.
        for name, resize in self.resized_on_load().items():
            saved = state_dict.get(prefix + name)
            parameter = getattr(self, name)
            if saved is None or parameter is None or saved.shape == parameter.shape:
                continue
            wanted = tuple(parameter.shape)
            if saved.shape[:-1] != wanted[:-1] or not saved.numel():
                raise ValueError(
                    f'{prefix}{name} is {tuple(saved.shape)} in the checkpoint and {wanted} in the '
                    'model: only the last axis, the length, can be resized'
                )
            state_dict[prefix + name] = resize_taps(saved, wanted[-1], resize)
            logger.info(
                'resized %s%s from %d to %d (%s)',
                prefix,
                name,
                saved.shape[-1],
                wanted[-1],
                resize,
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
