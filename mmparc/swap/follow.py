"""The inputs of the modules behind a backbone: necks first, then all heads."""

from collections.abc import Sequence
from typing import Any

from mmparc.engine import UserError
from mmparc.engine.errors import first_line

from .change import Key, Swap
from .features import Feature, neck_outputs

# The keys of a model that are no head.
OTHERS = 'type backbone neck data_preprocessor train_cfg test_cfg init_cfg pretrained'.split()


def is_pooling(neck: Any) -> bool:
    """Whether a neck is a global average and nothing else."""
    return isinstance(neck, dict) and neck['type'].rpartition('.')[2] == 'GlobalAveragePooling'


def set_pooling(swap: Swap) -> None:
    """Pool a classifier's last map where its backbone does not, and only there."""
    pools = swap.new.strides == [None]
    if pools and swap.get('neck') is not None:
        swap.set('neck', value=None, why=f'{swap.name} pools its last map itself')
    elif not pools and swap.get('neck') is None:
        why = f'{swap.name} outputs a map, {swap.old_name} did not'
        swap.set('neck', value=dict(type='GlobalAveragePooling'), why=why)


def set_channels(swap: Swap) -> None:
    """Change the input channels of necks and heads to those of the backbone's outputs.

    Raises:
        UserError: if a part of the model is made for the old backbone alone.
    """
    old, new = swap.old.outputs, swap.new.outputs
    neck = swap.get('neck')
    if neck is not None and not is_pooling(neck):
        for key in [('neck', i) for i in range(len(neck))] if _is_list(neck) else [('neck',)]:
            old, new = _through_neck(swap, key, old, new)
    if 'shared_head' in (swap.get('roi_head') or {}):
        raise UserError(
            f'roi_head.shared_head is the last stage of {swap.old_name}, with its weights: take a '
            'config with an FPN'
        )
    old, new = _channels(old), _channels(new)
    if old == new:
        return
    known = len(swap.reasons)
    for name, head in list(swap.get().items()):
        if name not in OTHERS:
            _follow(swap, (name,), head, old, new)
    if swap.get('head') and swap.old.strides == [None] and len(swap.reasons) == known:
        raise UserError(
            f"the head takes {swap.old_name}'s output for logits: take a config whose head has a "
            'layer, such as LinearClsHead'
        )


def _through_neck(
    swap: Swap, key: Key, old: list[Feature], new: list[Feature]
) -> tuple[list[Feature], list[Feature]]:
    """A neck's outputs before and now; its inputs are changed."""
    neck = swap.get(*key)
    if _channels(old) == _channels(new):
        return old, new  # the next module sees no difference either
    before = neck.to_dict()
    _follow(swap, key, neck, _channels(old), _channels(new))
    if isinstance(neck.get('out_channels'), int):
        return old, old  # its outputs have that many, whatever the backbone
    try:
        return neck_outputs(before, swap.scope, old), neck_outputs(neck, swap.scope, new)
    except ValueError:
        return old, old  # no maps: the modules behind it do not see the backbone's channels
    except Exception as error:  # another project's neck may raise anything
        raise UserError(
            f'{neck.type} cannot be run behind {swap.old_name} and {swap.name}: {first_line(error)}'
        ) from error


def _follow(swap: Swap, key: Key, node: Any, old: list[int], new: list[int]) -> None:
    """Change the input channels of a module, and of the modules in it."""
    if _is_list(node):
        for i, child in enumerate(node):
            _follow(swap, (*key, i), child, old, new)
    if not isinstance(node, dict):
        return
    changes = {'in_channels': _inputs(node, old, new)}
    if node.get('num_convs') == 0 and node.get('channels') == node.get('in_channels'):
        changes['channels'] = changes['in_channels']  # an FCN of one 1x1
    if node.get('c1_in_channels') == old[0]:  # DeepLabV3+
        changes['c1_in_channels'] = new[0]
    given = node.get('out_channels')
    if _is_list(given) and list(given[: len(old)]) == old:  # SSD's neck keeps its inputs
        changes['out_channels'] = [*new, *given[len(old) :]]
    if key[-1] == 'bbox_roi_extractor' and given == old[-1]:  # as many outputs as inputs
        changes['out_channels'] = new[-1]
    for name, value in changes.items():
        before = node.get(name)
        if value is not None and value != (list(before) if _is_list(before) else before):
            value = type(before)(value)
            swap.set(*key, name, value=value, why=f'for {swap.name}; {before} before')
    for name, child in node.items():
        if name != 'kernel_update_head':  # K-Net's, behind another head
            _follow(swap, (*key, name), child, old, new)


def _inputs(node: dict, old: list[int], new: list[int]) -> int | list[int] | None:
    """A module's in_channels for the new maps; None if they are not the old maps'."""
    given, index = node.get('in_channels'), node.get('in_index', -1)
    if _is_list(given):
        for order in (slice(None), slice(None, None, -1)):  # YOLOv3 names the last first
            if list(given) == old[order]:
                return new[order]
        if _is_list(index) and list(given) == [old[i] for i in index]:
            return [new[i] for i in index]
    elif isinstance(index, int) and -len(old) <= index < len(old) and given == old[index]:
        return new[index]
    return None


def _channels(outputs: Sequence[Feature]) -> list[int]:
    return [output.channels for output in outputs]


def _is_list(node: Any) -> bool:
    return isinstance(node, list | tuple)
