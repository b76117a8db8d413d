"""Configs as the tools use them: found by path or upstream name, overridden, and adjusted."""

import argparse
import importlib.util
import inspect
import os
import traceback
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.runner import Runner
from mmengine.utils import get_installed_path

from mmparc.home import home

from .device import VARIABLES
from .errors import UserError, first_line, suggest

# The folder of a task's configs and runs, by the scope that its configs are written for.
TASKS = {'mmpretrain': 'cls', 'mmdet': 'det', 'mmseg': 'seg'}

# What an option may set that a config's file does not have: all that a Runner looks at.
SETTINGS = [
    *inspect.signature(Runner).parameters,
    'compile',
    'data_root',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
]
DICTS = (
    *(f'{loop}_{part}' for loop in ('train', 'val', 'test') for part in ('dataloader', 'cfg')),
    *('optim_wrapper', 'default_hooks', 'randomness', 'auto_scale_lr'),
)

# mmengine looks for bases of mmseg:: in a package mmsegmentation, which the forks name otherwise.
if importlib.util.find_spec('mmseg'):
    MODULE2PACKAGE['mmseg'] = 'mmseg'


def config_of(args: argparse.Namespace) -> Config:
    """Load the config that parsed arguments ask for, with its work directory and launcher."""
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.launcher != 'none':
        variable = VARIABLES[args.launcher][0]
        if variable not in os.environ:
            raise UserError(
                f'--launcher {args.launcher} is for a process that it has started, and {variable} '
                'is not in the environment: use tools/dist_train.sh or tools/slurm_train.sh'
            )
    cfg = load_config(args.config, args.cfg_options)
    set_work_dir(cfg, args.config, args.work_dir)
    if Path(cfg.work_dir).exists() and not Path(cfg.work_dir).is_dir():
        raise UserError(f"the work directory '{cfg.work_dir}' is a file: pass another --work-dir")
    cfg.launcher = args.launcher
    return cfg


def load_config(name: str, options: dict[str, Any] | None = None) -> Config:
    """Load a config and apply ``--cfg-options``.

    Args:
        name: a path, an upstream name such as 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', or
            one of mmparc's own, 'mmparc::det/convnext/mask-rcnn_parc-convnext-xt_fpn_1x_coco.py'.
        options: dotted keys and values. ``data_root`` moves every path under the old root in data
            loaders and evaluators.

    Raises:
        UserError: if it does not exist, is not a config of the three tasks, or an option does not
            fit.
    """
    path = config_path(name)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program, which may raise anything
        raise UserError(
            f"'{name}' cannot be read as a config ({_what_and_where(error, path)}): correct it, or "
            'pass another one'
        ) from error
    _check_full(cfg, f"'{name}'")
    if options:
        loaders = [cfg.get(f'{loop}_dataloader') for loop in ('train', 'val', 'test')]
        roots = [data.get('data_root') for loader in loaders for data in datasets_of(loader)]
        old_root = next(filter(None, roots), None)
        for key, value in options.items():
            _merge(cfg, key, value)
        _check_full(cfg, f"'{name}' with --cfg-options")
        if 'data_root' in options:
            if old_root is None:
                raise UserError(f"'{name}' has no data_root to move: set its data sets' own paths")
            _move_data(cfg, old_root, str(options['data_root']))
    return cfg


def _what_and_where(error: Exception, path: Path) -> str:
    """What was wrong with a config, and in which line where that is known."""
    if isinstance(error, SyntaxError):  # its own line is that of the config
        line = error.lineno
    else:
        names = str(path), str(path.absolute())
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename in names]
        line = lines[-1] if lines else None
    return first_line(error) + (f', line {line}' if line else '')


def _check_full(cfg: Config, name: str) -> None:
    if cfg.get('default_scope') not in TASKS or 'model' not in cfg:
        raise UserError(
            f'{name} is not a full config: it needs a model and a default_scope '
            f'({", ".join(TASKS)})'
        )
    if not isinstance(cfg.model, dict) or 'type' not in cfg.model:
        raise UserError(f'model in {name} must be a dict with a type')
    for key in DICTS:
        if not isinstance(cfg.get(key) or {}, dict):
            raise UserError(f'{key} in {name} must be a dict, got {cfg[key]!r}')


def _merge(cfg: Config, key: str, value: Any) -> None:
    """Set a dotted key; UserError if the config has no place for it, or it has no effect."""
    first = key.partition('.')[0]
    if first not in cfg and first not in SETTINGS:
        hint = suggest(first, [*cfg, *SETTINGS]) or 'look up its keys in the file'
        raise UserError(f"--cfg-options {key}: there is no '{first}' in the config: {hint}")
    if first not in SETTINGS:  # settings made of it when the file was read keep the old value
        old = cfg[first] if isinstance(cfg[first], dict | list) else None
        nodes = [named for top in SETTINGS for named in named_nodes(top, cfg.get(top))]
        uses = [(p, k) for p, n in nodes for k, v in n.items() if k == first or (old and v == old)]
        places = ' or '.join(f'{path}.{name}' for path, name in uses) or 'what is made of it'
        raise UserError(
            f'--cfg-options {key} has no effect, since {first} is a variable of the file: set '
            + places
        )
    try:
        cfg.merge_from_dict({key: value})
    except (TypeError, KeyError, IndexError, ValueError, AttributeError, AssertionError) as error:
        raise UserError(
            f'--cfg-options {key}={value}: the config has no place for it '
            f'({first_line(error)}): look up what its file has there'
        ) from error


def config_path(name: str) -> Path:
    """The file of a config given by its path or its name; UserError if it does not exist."""
    package, named, relative = name.partition('::')
    if not named:
        if Path(name).is_file():
            return Path(name)
        hint = suggest(name, own_configs())
        hint = hint or 'pass the path of a .py file, or a name mmparc::... or mmdet::...'
        raise UserError(f"there is no config '{name}': {hint}")
    if package not in (*TASKS, 'mmparc'):
        known = ', '.join(f'{package}::' for package in (*TASKS, 'mmparc'))
        raise UserError(f"'{name}' must begin with one of {known}")
    root = home() if package == 'mmparc' else Path(get_installed_path(package), '.mim')
    path = root / 'configs' / relative
    if not path.is_file():
        hint = suggest(relative, _names(root / 'configs'))
        hint = hint or f'the configs lie in {root / "configs"}'
        raise UserError(f"{package} ships no config '{relative}': {hint}")
    return path


def own_configs() -> list[str]:
    """Paths below ./configs, as in a checkout; where there are none, mmparc's own by name."""
    local = [str(path) for path in Path('configs').glob('[!_]*/**/*.py')]
    return local or [f'mmparc::{name}' for name in _names(home() / 'configs')]


def _names(configs: Path) -> list[str]:
    return [path.relative_to(configs).as_posix() for path in configs.glob('[!_]*/**/*.py')]


def image_settings(cfg: Config) -> dict:
    """A config's data preprocessor, in the model or beside it; {} if there is none."""
    return cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}


def are_rgb(settings: dict) -> bool:
    """Whether a data preprocessor's images, which are read as BGR, reach the network as RGB."""
    return any(settings.get(key) for key in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'))


def datasets_of(loader: dict | None) -> list[dict]:
    """The innermost data set dicts of a data loader's config, wrappers unwrapped."""
    pending = [loader] if loader else []
    found = []
    while pending:
        node = pending.pop()
        inner = node.get('dataset') or node.get('datasets')
        inner = inner if isinstance(inner, list | tuple) else [inner]
        if inner != [None]:
            pending.extend(each for each in inner if isinstance(each, dict))  # or data sets
        else:
            found.append(node)
    return found


def _move_data(cfg: Config, old: str, new: str) -> None:
    old, new = old.rstrip('/'), new.rstrip('/')

    def moved(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: moved(value) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return type(node)(map(moved, node))
        inside = isinstance(node, str) and (node == old or node.startswith(old + '/'))
        return new + node[len(old) :] if inside else node

    for key, value in list(cfg.items()):
        if key.endswith(('_dataloader', '_evaluator')):
            cfg[key] = moved(value)


def set_work_dir(cfg: Config, name: str, work_dir: str | None) -> None:
    """Set ``work_dir``, else keep the config's own, else take work_dirs/<task>/<config stem>."""
    default = Path('work_dirs', TASKS[cfg.default_scope], Path(name.split('::')[-1]).stem)
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(default)


def drop_pretrained(cfg: Config) -> None:
    """Remove every pretrained checkpoint from the model, which then initializes itself."""
    for _, node in named_nodes('model', cfg.model):
        init_cfg = node.get('init_cfg')
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            del node['init_cfg']
        elif isinstance(init_cfg, list | tuple):
            node['init_cfg'] = [c for c in init_cfg if c.get('type') != 'Pretrained']
        if isinstance(node.get('pretrained'), str):
            node['pretrained'] = None


def named_nodes(key: str, node: Any) -> list[tuple[str, dict]]:
    """Every dict in a nested config with its dotted key, the outer ones first."""
    if isinstance(node, dict):
        children = [n for k, value in node.items() for n in named_nodes(f'{key}.{k}', value)]
        return [(key, node), *children]
    if isinstance(node, list | tuple):
        return [n for i, value in enumerate(node) for n in named_nodes(f'{key}.{i}', value)]
    return []


def set_amp(cfg: Config, amp: bool | None) -> None:
    """Turn mixed precision on or off; None keeps the config's choice. UserError without a GPU."""
    wrapper = cfg.get('optim_wrapper')
    if wrapper is None:
        raise UserError('the config has no optim_wrapper, so it cannot be trained')
    if amp:
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    elif amp is False and wrapper.get('type') == 'AmpOptimWrapper':
        wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            wrapper.pop(key, None)
    if wrapper.get('type') == 'AmpOptimWrapper' and not torch.cuda.is_available():
        raise UserError('automatic mixed precision needs a GPU: pass --no-amp to train on the CPU')


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the actual batch size; UserError if its base is not known."""
    if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        raise UserError(
            '--auto-scale-lr needs the batch size that the learning rate was made for: '
            'also pass --cfg-options auto_scale_lr.base_batch_size=N'
        )
    cfg.auto_scale_lr.enable = True


def use_default_collate(cfg: Config) -> None:
    """Batch classification images as tensors, as mmpretrain's own tools do."""
    if cfg.default_scope == 'mmpretrain':
        for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(key):
                cfg[key].setdefault('collate_fn', dict(type='default_collate'))


def enable_drawing(cfg: Config, directory: str) -> None:
    """Make the test loop draw its predictions into ``directory``."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError('--show-dir needs default_hooks.visualization, which this config lacks')
    directory = str(Path(directory).absolute())
    if cfg.default_scope == 'mmpretrain':
        hook.update(enable=True, interval=1, out_dir=directory)
    elif cfg.default_scope == 'mmdet':
        hook.update(draw=True, test_out_dir=directory)
    else:
        hook.update(draw=True, interval=1)
        cfg.visualizer.save_dir = directory
