"""What the figures of trained models share: names, the test to run, and a picture's file."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from mmengine.config import Config

from mmparc.engine import UNTRAINED

plt.switch_backend('agg')  # pictures are files; there may be no display

VISUALIZERS = {
    'mmpretrain': 'UniversalVisualizer',
    'mmdet': 'DetLocalVisualizer',
    'mmseg': 'SegLocalVisualizer',
}
Pair = tuple[str, str]  # a config's path or name, and a checkpoint or 'none'


def config_name(config: str) -> str:
    """The stem of a config that is given by its path or its name."""
    return Path(config.rpartition('::')[2]).stem


def labels(pairs: Sequence[Pair]) -> list[str]:
    """Names that tell the pairs apart: the config's and the checkpoint's, as short as possible.

    Checkpoints of the same name, such as those of several seeds, show as many of their folders as
    needed.
    """
    names = [config_name(config) for config, _ in pairs]
    parts = [('untrained',) if c == UNTRAINED else Path(c).parts for _, c in pairs]
    for length in range(1, max(map(len, parts)) + 1):
        made = [f'{name}, {"/".join(p[-length:])}' for name, p in zip(names, parts)]
        if len(set(made)) == len(set(pairs)):
            break
    return made


def for_measuring(cfg: Config, folder: str) -> Config:
    """A copy of a config whose Runner logs errors alone and writes into a temporary folder.

    Its visualizer is upstream's and keeps no pictures. Random weights, where there is no
    checkpoint, are the same each time.
    """
    # A Runner writes its config down, which takes a second where yapf formats it.
    cfg = Config(cfg.to_dict(), filename=cfg.filename, format_python_code=False)
    cfg.log_level = 'ERROR'
    cfg.work_dir = folder
    cfg.visualizer = {'type': VISUALIZERS[cfg.default_scope]}
    # Ending persistent workers takes seconds for each test.
    cfg.test_dataloader.persistent_workers = False
    settings = dict(cfg.get('randomness') or {})
    cfg.randomness = settings | {'seed': settings.get('seed') or 0}
    return cfg


def save(figure: plt.Figure, path: Path, dpi: int = 90) -> None:
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
