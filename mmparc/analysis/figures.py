"""What the figures of trained models share: names, the test to run, and a picture's file."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from mmengine.config import Config

plt.switch_backend('agg')  # pictures are files; there may be no display

Pair = tuple[str, str]  # a config's path or name, and a checkpoint or 'none'


def config_name(config: str) -> str:
    """The stem of a config that is given by its path or its name."""
    return Path(config.rpartition('::')[2]).stem


def labels(pairs: Sequence[Pair]) -> list[str]:
    """Names of the pairs: the config's, and the checkpoint's with its folder."""
    return [f'{config_name(config)}, {"/".join(Path(c).parts[-2:])}' for config, c in pairs]


def for_measuring(cfg: Config, folder: str) -> Config:
    """A copy of a config whose Runner logs errors alone and writes into a temporary folder.

    Random weights, where there is no checkpoint, are the same each time.
    """
    # A Runner writes its config down, which takes a second where yapf formats it.
    cfg = Config(cfg.to_dict(), filename=cfg.filename, format_python_code=False)
    cfg.log_level = 'ERROR'
    cfg.work_dir = folder
    cfg.visualizer = {'type': 'Visualizer'}  # mmengine's, which stores nothing
    # Ending persistent workers takes seconds for each test.
    cfg.test_dataloader.persistent_workers = False
    settings = dict(cfg.get('randomness') or {})
    cfg.randomness = settings | {'seed': settings.get('seed') or 0}
    return cfg


def save(figure: plt.Figure, path: Path, dpi: int = 90) -> None:
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
