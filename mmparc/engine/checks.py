"""Checks of a config before anything is built, so that an error is one line and no log begins."""

import copy
import re
from pathlib import Path

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, Registry
from torch import nn

from .config import TASKS, datasets_of, named_nodes, own_configs
from .errors import UserError, building, suggest

# What builds a dict, by its key in the config.
KINDS = {
    r'model(\.(?!init_cfg)\w+)?': MODELS,
    r'\w+_dataloader\.(.+\.)?(dataset|datasets\.\d+)': registries.DATASETS,
    r'\w+_dataloader\..+\.pipeline\.\d+': registries.TRANSFORMS,
    r'\w+_evaluator(\.\d+)?': registries.METRICS,
    r'(default|custom)_hooks\.\w+': registries.HOOKS,
    r'optim_wrapper\.optimizer': registries.OPTIMIZERS,
    r'param_scheduler(\.\d+)?': registries.PARAM_SCHEDULERS,
}


def check_types(cfg: Config, *loops: str) -> None:
    """Raise UserError if a type in the model or in the given loops ('train', 'val') is unknown."""
    keys = ['model', *(f'{loop}_{part}' for loop in loops for part in ('dataloader', 'evaluator'))]
    keys += ['default_hooks', 'custom_hooks'] if loops else []
    keys += ['optim_wrapper', 'param_scheduler'] if 'train' in loops else []
    nodes = [named for key in keys for named in named_nodes(key, cfg.get(key))]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for key, node in nodes:
            registry = next((of for kind, of in KINDS.items() if re.fullmatch(kind, key)), None)
            own = registry is registries.METRICS and 'metrics' in node  # an Evaluator around them
            if registry and not own and isinstance(node.get('type'), str):
                _check_type(key, node, cfg.default_scope, registry)


def _check_type(key: str, node: dict, scope: str, root: Registry) -> None:
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
