"""A checkpoint with code in it: whichever tool it is given to, the code does not run.

The loaders behind the tools, and more attacks, are in tests/engine/test_checkpoint.py.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import ROOT, needs_safe_loading, run_tool

CLS = ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py'
DET = ROOT / 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py'
SEG = ROOT / 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py'


class WritesFile:
    """Pickles as code that writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return exec, (f'open({str(self.path)!r}, "w").close()',)


# The ways in. {file} is the checkpoint.
TRAIN = ['tools/train.py', CLS, '--work-dir', 'run']
CONVERT = ['tools/convert_official.py', 'parc_convnext', '{file}', 'out.pth']
WAYS = {
    'train, resume': [*TRAIN, '--resume', '{file}'],
    'train, load_from': [*TRAIN, '--cfg-options', 'load_from={file}'],
    'train, backbone': [
        *TRAIN,
        '--cfg-options',
        'model.backbone.init_cfg.type=Pretrained',
        'model.backbone.init_cfg.checkpoint={file}',
    ],
    'train, resume the latest': [*TRAIN, '--resume'],
    'test': ['tools/test.py', CLS, '{file}', '--work-dir', 'run'],
    'test a detector': ['tools/test.py', DET, '{file}', '--work-dir', 'run'],
    'test a segmentor': ['tools/test.py', SEG, '{file}', '--work-dir', 'run'],
    'convert': CONVERT,
    'convert back': [*CONVERT, '--to-official'],
    'export': ['tools/export_onnx.py', CLS, '{file}', 'out.onnx', '--shape', '64', '64'],
    'draw kernels': ['tools/analysis/plot.py', 'kernels', CLS, '{file}', '--out', 'out'],
    'erf': ['tools/analysis/plot.py', 'erf', '--config', CLS, '{file}', '--out', 'out'],
    'input sizes': ['tools/analysis/plot.py', 'sizes', CLS, '{file}', '--out', 'out'],
    'compare predictions': [
        *('tools/analysis/plot.py', 'predictions', CLS, 'none', CLS, '{file}', '--out', 'out'),
    ],
}
NEED_DATA = ('train', 'test', 'input', 'compare')


def check_way(way: str, folder: Path, data: Callable[[str], Path]) -> None:
    """Fail unless a tool refuses a file in one line that names it, and runs nothing of it."""
    folder.mkdir()
    trace, path = folder / 'trace', folder / 'downloaded.pth'
    weights = {'backbone.stages.2.0.gamma': torch.ones(8)}
    attack = dict(state_dict=weights, meta=dict(epoch=1), message_hub=WritesFile(trace))
    torch.save(attack, path)
    torch.load(path, weights_only=False)
    assert trace.exists(), 'control: the code runs where loading is not safe'
    trace.unlink()
    if way == 'train, resume the latest':
        (folder / 'run').mkdir()
        (folder / 'run/last_checkpoint').write_text(str(path))
    tool, *args = (part.format(file=path) if isinstance(part, str) else part for part in WAYS[way])
    if way.startswith(NEED_DATA):
        config = next(arg for arg in args if isinstance(arg, Path))
        args += [] if '--cfg-options' in args else ['--cfg-options']
        args.append(f'data_root={data(config.parent.parent.name)}')
    before = path.read_bytes()
    result = run_tool(tool, *args, cwd=folder)
    assert not trace.exists(), 'the code ran'
    assert result.returncode == 1, result.stdout[-2000:] + result.stderr[-2000:]
    errors = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert 'Traceback' not in result.stderr and len(errors) == 1, result.stderr[-2000:]
    assert str(path) in errors[0]
    assert path.read_bytes() == before
    made = [p for out in folder.glob('out*') for p in (out, *out.rglob('*')) if p.is_file()]
    assert not made, made  # some tools make the folder first


@needs_safe_loading
@pytest.mark.parametrize('ways', [['train, resume'], pytest.param(WAYS, marks=pytest.mark.full)])
def test_no_way_in(ways, record, data, tmp_path):
    for i, way in enumerate(ways):
        check_way(way, tmp_path / str(i), data)
    record('ways in with a checkpoint that holds code', len(ways), len(ways))
