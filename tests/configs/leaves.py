"""The configs of the three tasks, and what the tests ask of them."""

import ast
import copy
import functools
from pathlib import Path
from typing import Any

import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmparc import engine

SCOPES = {'cls': 'mmpretrain', 'det': 'mmdet', 'seg': 'mmseg'}
CONFIGS = ROOT / 'configs'
LEAVES = sorted(
    path.relative_to(CONFIGS).as_posix()
    for task in SCOPES
    for path in CONFIGS.glob(f'{task}/**/*.py')
)
PARC = [leaf for leaf in LEAVES if 'parc-' in leaf or 'parcnet-' in leaf]
# ParC-Nets without a plain twin: no MobileViT has their width.
ALONE = [f'cls/parcnet/parcnet-{size}_8xb128_in1k.py' for size in ('xs', 'h')]
# The last layers of backbones whose detectors and segmentors use none of their output.
# MobileNetV2 and MobileViT run it all the same, ParCNet freezes its own.
FINAL_1X1 = {'mobilenet_v2': 'conv2', 'parcnet': 'conv_1x1_exp'}


def long_recipe(name: str) -> str | None:
    """The long recipe that a config for a few GPUs shortens; None for other configs."""
    for short, long in (('_8xb128-100e_', '_32xb128_'), ('-40k_', '-160k_')):
        if short in name:
            return name.replace(short, long)
    return None


def bases_of(config: Path) -> list[str]:
    """The names that a config's ``_base_`` gives."""
    for node in ast.parse(config.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_':
            bases = ast.literal_eval(node.value)
            return [bases] if isinstance(bases, str) else list(bases)
    return []


def plain_twin(leaf: str) -> str:
    """The config that a ParC config inherits."""
    (base,) = bases_of(CONFIGS / leaf)
    return (CONFIGS / leaf).parent.joinpath(base).resolve().relative_to(CONFIGS).as_posix()


def unused_parameters(leaf: str) -> set[str]:
    """The parameters that get no gradient."""
    task, family, name = leaf.split('/')
    if family not in FINAL_1X1 or (task == 'cls' and '-narrow_' not in name):
        return set()
    return {f'backbone.{FINAL_1X1[family]}.{n}' for n in ('conv.weight', 'bn.weight', 'bn.bias')}


@functools.cache
def parsed(leaf: str) -> Config:
    """A config that the caller does not change."""
    return Config.fromfile(CONFIGS / leaf)


def load(leaf: str) -> Config:
    return copy.deepcopy(parsed(leaf))


def model_of(cfg: Config) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(copy.deepcopy(cfg.model))


def parameters(leaf: str) -> int:
    """The number of parameters of the model that a config builds."""
    cfg = load(leaf)
    engine.drop_pretrained(cfg)
    return sum(p.numel() for p in model_of(cfg).parameters())


def differences(a: Any, b: Any, key: str = '') -> set[str]:
    """The dotted keys at which two nested configs differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = {k: (a.get(k, Ellipsis), b.get(k, Ellipsis)) for k in {*a, *b}}
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = dict(enumerate(zip(a, b)))
    else:
        return set() if a == b else {key.removeprefix('.')}
    return {found for k, (x, y) in pairs.items() for found in differences(x, y, f'{key}.{k}')}
