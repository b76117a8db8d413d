"""Checkpoints whose kernels and embeddings have another length than the model's.

A model made for another ``img_size`` has kernels of other lengths. mmengine only logs a size
mismatch and leaves the parameter at its random value; here the saved one is resized instead.
"""

import logging

from torch import Tensor, nn

from mmparc.ops import resize_taps

logger = logging.getLogger(__name__)


class ResizedOnLoad(nn.Module):
    """A module that resizes some of its parameters, along their last axis, when they are loaded."""

    def resized_on_load(self) -> dict[str, str]:
        """The parameters' names, each with its rule, see :func:`mmparc.ops.resize_taps`."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
        # Its caller, torch's or mmengine's load_state_dict, hands over a copy of the user's dict.
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
