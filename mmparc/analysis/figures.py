"""What the tools share that draw trained models: how these are named, and where pictures go."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.config import Config

from mmparc.analysis import report
from mmparc.engine import UNTRAINED, UserError

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

    Checkpoints of the same name, as those of several seeds, get as many of their folders as it
    takes.
    """
    names = [config_name(config) for config, _ in pairs]
    parts = [('untrained',) if c == UNTRAINED else Path(c).parts for _, c in pairs]
    for length in range(1, max(map(len, parts)) + 1):
        made = [f'{name}, {"/".join(p[-length:])}' for name, p in zip(names, parts)]
        if len(set(made)) == len(set(pairs)):
            break
    return made


def make_folder(folder: Path, names: Iterable[str], force: bool) -> None:
    """As :func:`mmparc.analysis.report.make_folder`, but that it raises UserError."""
    try:
        report.make_folder(folder, names, force)
    except FileExistsError as error:
        raise UserError(str(error)) from None


def for_measuring(cfg: Config, folder: str) -> Config:
    """A copy of a config whose Runner logs errors alone, and writes into a folder to be removed.

    Its visualizer is upstream's, one of its own for each Runner, and keeps no pictures. Random
    weights, where there is no checkpoint, are the same each time.
    """
    # A Runner writes its config down, which takes a second where yapf makes it pretty.
    cfg = Config(cfg.to_dict(), filename=cfg.filename, format_python_code=False)
    cfg.log_level = 'ERROR'
    cfg.work_dir = folder
    cfg.visualizer = {'type': VISUALIZERS[cfg.default_scope]}
    # The workers of one test are to end with it: to end those that wait takes seconds.
    cfg.test_dataloader.persistent_workers = False
    settings = dict(cfg.get('randomness') or {})
    cfg.randomness = settings | {'seed': settings.get('seed') or 0}
    return cfg
