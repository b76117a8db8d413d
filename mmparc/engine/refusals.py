"""Tells what a config, a file or the data cannot be used for from a fault in the code.

Upstream's constructors refuse a wrong setting by whatever exception comes, with a trace. Here such
an exception becomes one line. All others are faults, and keep their trace.
"""

import dis
import inspect
import os
import re
import traceback
from pathlib import Path
from types import FrameType

from mmengine.dataset import BaseDataset
from mmengine.registry import build_from_cfg
from mmengine.runner import Runner
from torch.utils.data import Dataset

from .errors import first_line, suggest

HERE = str(Path(__file__).parents[1]) + os.sep
RAISE = dis.opmap['RAISE_VARARGS']  # raise and assert
# What makes an object from a part of the config.
BUILDERS = {build_from_cfg.__code__: ''}
BUILDERS.update(
    (function.__code__, name.removeprefix('build_').replace('_', ' '))
    for name, function in inspect.getmembers(Runner, inspect.isfunction)
    if name.startswith('build_')
)


def refusal_of(error: Exception) -> str | None:
    """What to tell the user of an exception: one line; None if it is a fault of the code.

    It is the user's to mend where

    - an object was being built from the config, and it was code that raised the exception on
      purpose (``raise`` or ``assert``), or upstream's alone that met with it, or it has no such
      setting, or does not fit into memory;
    - a file of the user's is missing, is there already or may not be used.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    last = max((i for i, (f, _) in enumerate(frames) if f.f_code in BUILDERS), default=None)
    if last is not None:
        frame, inner = frames[last][0], [f for f, _ in frames[last + 1 :]]
        refused = _on_purpose(error) or _unknown_setting(error, frame) or _too_large(error)
        if refused or not _is_ours(inner):
            return _not_built(error, frame, inner)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"'{error.filename}': {error.strerror}: name another, or mend that"
    return None


def _on_purpose(error: Exception) -> bool:
    tb = error.__traceback__
    while tb.tb_next:
        tb = tb.tb_next
    return tb.tb_frame.f_code.co_code[tb.tb_lasti] == RAISE


def _is_ours(frames: list[FrameType]) -> bool:
    """Whether code of ours did more than to hand a constructor's arguments on to its parent's."""
    of = [f.f_locals.get('self') if f.f_code.co_name == '__init__' else None for f in frames]
    return any(
        frame.f_code.co_filename.startswith(HERE) and (made is None or made is not following)
        for frame, made, following in zip(frames, of, [*of, None][1:], strict=True)
    )


def _unknown_setting(error: Exception, frame: FrameType) -> str | None:
    """The setting of the config that a constructor does not know, if that is the matter."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    known = isinstance(error, TypeError) and found and found[1] in frame.f_locals.get('cfg', ())
    return found[1] if known else None


def _too_large(error: Exception) -> bool:
    """Whether a tensor did not fit into memory, or any."""
    said = str(error)
    return isinstance(error, RuntimeError) and ('allocate' in said or 'overflowed' in said)


def _not_built(error: Exception, frame: FrameType, inner: list[FrameType]) -> str:
    cfg = frame.f_locals.get('cfg', {})
    if not isinstance(cfg, dict):
        return f'the config has {cfg!r} where a dict with a type belongs: mend it, or --cfg-options'
    name = BUILDERS[frame.f_code] or cfg.get('type') or 'an entry without a type'
    name = name if isinstance(name, str) else getattr(name, '__name__', str(name))
    registry = frame.f_locals.get('registry')
    if not inner and isinstance(error, KeyError) and 'is not in the' in str(error):
        known = [*registry.module_dict, *(registry.parent.module_dict if registry.parent else ())]
        hint = suggest(name, known) or 'set its type to a registered name'
        return f"unknown {registry.name} '{name}' in the config: {hint}"
    setting = _unknown_setting(error, frame)
    if getattr(registry, 'name', None) == 'dataset' and not setting:
        return _no_data_set(error, name, cfg, inner)
    hint = 'mend its settings in the config, or in --cfg-options'
    if setting:
        hint = suggest(setting, _settings(frame.f_locals.get('obj_cls'))) or hint
    return f'{name} cannot be built from the config: {_cause(error)}: {hint}'


def _no_data_set(error: Exception, name: str, cfg: dict, inner: list[FrameType]) -> str:
    files = os.path.join(cfg.get('data_root') or '', cfg.get('ann_file') or '')
    for frame in inner:
        if frame.f_code is BaseDataset._serialize_data.__code__:  # fails where there are none
            return no_samples(frame.f_locals['self'])
    return (
        f"the data set {name} of '{files}' cannot be read: {_cause(error)}: mend its files, say "
        'where others are with --cfg-options data_root=DIR, or mend its settings in the config'
    )


def no_samples(dataset: Dataset) -> str:
    """What to tell of a data set that is empty."""
    where = getattr(dataset, 'ann_file', '') or getattr(dataset, 'data_root', '')
    return (
        f"the data set {type(dataset).__name__} of '{where}' is empty: complete it, look at what "
        'filter_cfg and metainfo.classes leave of it, or say where another is with --cfg-options '
        'data_root=DIR'
    )


def _cause(error: Exception) -> str:
    said = str(error).strip()
    if not said and isinstance(error, AssertionError):
        return f'{traceback.extract_tb(error.__traceback__)[-1].line}'
    of_ours = isinstance(error, ValueError) and said
    return ' '.join((said if of_ours else first_line(error)).split()).rstrip('.')


def _settings(made: object) -> list[str]:
    """The arguments of a class's constructors, or a function's."""
    functions = [k.__init__ for k in made.__mro__] if inspect.isclass(made) else [made]
    return [
        name
        for function in functions
        if inspect.isfunction(function)
        for name in inspect.signature(function).parameters
        if name not in ('self', 'args', 'kwargs')
    ]
