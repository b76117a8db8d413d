"""Looks at a config before anything is built, so that what is wrong is said in one line."""

import copy
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS, OPTIMIZERS, DefaultScope, Registry
from torch import nn

from .config import TASKS, datasets_of, named_nodes, own_configs
from .errors import UserError, suggest


def check_model_types(cfg: Config) -> None:
    """Raise UserError if the model, its backbone, neck or heads, or the optimizer is unknown."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        parts = {'model': cfg.model}
        parts.update({f'model.{k}': v for k, v in cfg.model.items() if k != 'init_cfg'})
        for key, part in parts.items():
            if isinstance(part, dict) and isinstance(part.get('type'), str):
                _check_type(key, part['type'], part.get('_scope_', cfg.default_scope))
        optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
        if isinstance(optimizer, dict) and isinstance(optimizer.get('type'), str):
            # mmengine would try to call what it has not found
            _check_type('optim_wrapper.optimizer', optimizer['type'], cfg.default_scope, OPTIMIZERS)


def _check_type(key: str, name: str, scope: str, registries: Registry = MODELS) -> None:
    with registries.switch_scope_and_registry(scope) as registry:
        try:
            found = registry.get(name)
        except RuntimeError:  # mmengine's answer to a name that looks like a module path
            found = None
        if found is not None:
            return
        what = key.rpartition('.')[2]
        hint = (
            suggest(name, _known_names(registry, registries))
            or f'set {key}.type to a registered name'
        )
        raise UserError(f"unknown {what} '{name}' in {key}.type: {hint}")


def _known_names(registry: Registry, registries: Registry) -> list[str]:
    names = [*registry.module_dict, *registries.module_dict]
    for scope in (*TASKS, 'mmparc') if registries is MODELS else ():
        with registries.switch_scope_and_registry(scope) as other:
            other.import_from_location()
            names += [f'{scope}.{name}' for name in other.module_dict]
    return names


def check_length(cfg: Config) -> None:
    """Raise UserError if the training is of no epochs or iterations: mmengine would do nothing."""
    for key in ('max_epochs', 'max_iters'):
        value = (cfg.get('train_cfg') or {}).get(key, 1)
        if not isinstance(value, int) or value < 1:
            raise UserError(f'train_cfg.{key} must be at least 1, got {value!r}: mend it')


def build_model(cfg: Config) -> nn.Module:
    """The model of a config of the three tasks, with random weights."""
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
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
                    f"there is no data root '{root}' ({loader}): put the data set there, say where "
                    'it is with --cfg-options data_root=DIR, or make the small one with '
                    '`python -m mmparc make_toy_data` and use its configs'
                )
            ann_file = dataset.get('ann_file')
            if ann_file and not Path(root, ann_file).exists():
                raise UserError(
                    f"the data root '{root}' has no '{ann_file}' ({loader}): complete it, "
                    'or say where another is with --cfg-options data_root=DIR'
                )


def check_pretrained(cfg: Config) -> None:
    """Raise UserError if the model starts from a local checkpoint that does not exist."""
    for key, node in named_nodes('model', cfg.model):
        path = node.get('checkpoint')
        local = node.get('type') == 'Pretrained' and isinstance(path, str) and '://' not in path
        if local and not Path(path).expanduser().is_file():
            recipes = [name for name in own_configs() if Path(name).stem == Path(path).parent.name]
            first = f'train it first (python -m mmparc train {recipes[0]}), ' if recipes else ''
            raise UserError(
                f"there is no pretrained checkpoint '{path}': {first}name another with "
                f'--cfg-options {key}.checkpoint=FILE, or train without one: --no-pretrained'
            )
