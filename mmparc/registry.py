"""mmparc's child registries, one of each kind that mmparc registers something in.

mmengine imports this file when a config says ``type='mmparc.X'``, and the locations below when it
looks the name up, so no config needs custom_imports. An ImportError in here would be swallowed and
show as "not in the registry": import nothing optional.
"""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_CONSTRUCTORS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmparc', locations=['mmparc.models'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_CONSTRUCTORS,
    scope='mmparc',
    locations=['mmparc.engine.layer_decay'],
)
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mmparc',
    locations=['mmparc.engine.saving', 'mmparc.engine.finite'],
)
