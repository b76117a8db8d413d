"""Checks of a config before anything is built, so that an error is one line and no log begins."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, Registry
from torch import nn

from .building import building
from .config import TASKS, datasets_of, named_nodes, own_configs
from .errors import UserError, suggest


def check_model_types(cfg: Config) -> None:
    """Raise UserError if the type of the model or of one of its parts is unknown."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for key, node in _parts('model', cfg.model):
            _check_type(key, node, cfg.default_scope, MODELS)


def check_types(cfg: Config, *loops: str) -> None:
    """Raise UserError if a type in the given loops ('train', 'val', 'test') is unknown."""
    check_model_types(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for key, node, registry in _typed(cfg, loops):
            _check_type(key, node, cfg.default_scope, registry)


def _typed(cfg: Config, loops: tuple[str, ...]) -> Iterator[tuple[str, Any, Registry]]:
    """The dicts that a run builds, with their keys and their registries."""
    for loop in loops:
        for key, node in named_nodes(f'{loop}_dataloader', cfg.get(f'{loop}_dataloader')):
            *_, parent, last = ['', *key.split('.')]
            if last == 'dataset' or parent == 'datasets':
                yield key, node, registries.DATASETS
            elif parent == 'pipeline':
                yield key, node, registries.TRANSFORMS
        evaluator = f'{loop}_evaluator'
        for key, node in _listed(evaluator, cfg.get(evaluator)):
            if 'metrics' not in node:  # an Evaluator around them
                yield key, node, registries.METRICS
    for part in ('default_hooks', 'custom_hooks'):
        for key, node in _parts(part, cfg.get(part)):
            yield key, node, registries.HOOKS
    if 'train' in loops:
        optimizer = cfg.optim_wrapper.get('optimizer')
        yield 'optim_wrapper.optimizer', optimizer, registries.OPTIMIZERS
        for key, node in _listed('param_scheduler', cfg.get('param_scheduler')):
            yield key, node, registries.PARAM_SCHEDULERS


def _listed(key: str, node: Any) -> list[tuple[str, dict]]:
    """A dict, or those in a list."""
    return [(key, node)] if isinstance(node, dict) else _parts(key, node)


def _parts(key: str, node: Any) -> list[tuple[str, dict]]:
    """A dict and its parts but for the initialization, or the dicts of a list."""
    nodes = named_nodes(key, node)
    depth = key.count('.') + 1
    return [(k, n) for k, n in nodes if k.count('.') <= depth and not k.endswith('.init_cfg')]


def _check_type(key: str, node: Any, scope: str, root: Registry) -> None:
    if not isinstance(node, dict) or not isinstance(node.get('type'), str):
        return
    name = node['type']
    with root.switch_scope_and_registry(node.get('_scope_', scope)) as registry:
        try:
            found = registry.get(name)
        except RuntimeError:  # mmengine's answer to a name that looks like a module path
            found = None
        if found is None:
            hint = suggest(name, _known_names(registry, root))
            hint = hint or f'set {key}.type to a registered {root.name}'
            what = key.rpartition('.')[2] if root is MODELS else root.name
            raise UserError(f"unknown {what} '{name}' in {key}.type: {hint}")


def _known_names(registry: Registry, root: Registry) -> list[str]:
    names = [*registry.module_dict, *root.module_dict]
    for scope in (*TASKS, 'mmparc') if root is MODELS else ():
        with root.switch_scope_and_registry(scope) as other:
            other.import_from_location()
            names += [f'{scope}.{name}' for name in other.module_dict]
    return names


def check_length(cfg: Config) -> None:
    """Raise UserError if a training has no epochs or iterations: mmengine would do nothing."""
    for key in ('max_epochs', 'max_iters'):
        value = (cfg.get('train_cfg') or {}).get(key, 1)
        if not isinstance(value, int) or value < 1:
            raise UserError(f'train_cfg.{key} must be at least 1, got {value!r}')


def build_model(cfg: Config) -> nn.Module:
    """A config's model with random weights; UserError if it cannot be built."""
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with building('the model'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(model)


def check_data(cfg: Config, *loaders: str) -> None:
    """Raise UserError if a data set of the named data loaders is not on disk."""
    for loader in loaders:
        for dataset in datasets_of(cfg.get(loader)):
            root = dataset.get('data_root') or ''
            if '://' in root:
                continue
            if root and not Path(root).is_dir():
                raise UserError(
                    f"there is no data root '{root}' ({loader}): put the data set there, name "
                    'another folder with --cfg-options data_root=DIR, or make the toy data with '
                    '`python -m mmparc make_toy_data` and use the toy configs'
                )
            ann_file = dataset.get('ann_file')
            if ann_file and not Path(root, ann_file).exists():
                raise UserError(
                    f"the data root '{root}' has no '{ann_file}' ({loader}): add it, or name "
                    'another folder with --cfg-options data_root=DIR'
                )


def check_pretrained(cfg: Config) -> None:
    """Raise UserError if a local checkpoint that the run starts from does not exist."""
    for key, node in named_nodes('model', cfg.model):
        path = node.get('checkpoint')
        if node.get('type') == 'Pretrained' and isinstance(path, str) and not exists(path):
            recipes = [name for name in own_configs() if Path(name).stem == Path(path).parent.name]
            first = f'train it first (python -m mmparc train {recipes[0]}), ' if recipes else ''
            raise UserError(
                f"there is no pretrained checkpoint '{path}': {first}name another with "
                f'--cfg-options {key}.checkpoint=FILE, or train without one: --no-pretrained'
            )
    if cfg.get('load_from') and not exists(cfg.load_from):
        option = '--resume' if cfg.get('resume') else 'load_from'
        raise UserError(
            f"there is no checkpoint '{cfg.load_from}' to load: name another one, or omit {option} "
            'to start a new run'
        )


def exists(path: str) -> bool:
    """Whether a checkpoint is a file, or an address, which mmengine looks up."""
    return '://' in path or Path(path).expanduser().is_file()
