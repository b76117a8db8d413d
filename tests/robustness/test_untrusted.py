"""A checkpoint with code in it: whichever way it comes in, the code does not run.

The code would write a file, and does where such a checkpoint is loaded without care. That reports
escape what they show is tested in tests/results/test_write.py.
"""

import functools
import http.server
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers import OLD_TORCH, ROOT, needs_safe_loading, run_tool
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmparc import engine

CLS = ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py'
DET = ROOT / 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py'
SEG = ROOT / 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py'


class WritesFile:
    """Pickles as code that writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return exec, (f'open({str(self.path)!r}, "w").close()',)


def checkpoint_with(trace: Path) -> dict:
    weights = {'backbone.stages.2.0.gamma': torch.ones(8)}
    return dict(state_dict=weights, meta=dict(epoch=1), message_hub=WritesFile(trace))


# How the file is written; what each would do is tried below.
KINDS: dict[str, Callable[[dict, Path], None]] = {
    'torch': torch.save,
    'torch before 1.6': functools.partial(torch.save, _use_new_zipfile_serialization=False),
    'pickle': lambda checkpoint, path: path.write_bytes(pickle.dumps(checkpoint, 2)),
    'pickle of today': lambda checkpoint, path: path.write_bytes(pickle.dumps(checkpoint)),
}


def loads_carelessly(path: Path) -> None:
    try:
        torch.load(path, weights_only=False)
    except RuntimeError:  # 'Invalid magic number', once it has unpickled a plain pickle
        pass


# The ways in. {file} is the checkpoint, {name} its name in the working directory.
TRAIN = ['tools/train.py', CLS, '--work-dir', 'run']
WAYS = {
    'train, load_from': [*TRAIN, '--cfg-options', 'load_from={file}'],
    'train, backbone': [
        *TRAIN,
        '--cfg-options',
        'model.backbone.init_cfg.type=Pretrained',
        'model.backbone.init_cfg.checkpoint={file}',
    ],
    'train, resume': [*TRAIN, '--resume', '{file}'],
    'train, resume the latest': [*TRAIN, '--resume'],
    'test': ['tools/test.py', CLS, '{file}', '--work-dir', 'run'],
    'test a detector': ['tools/test.py', DET, '{file}', '--work-dir', 'run'],
    'test a segmentor': ['tools/test.py', SEG, '{file}', '--work-dir', 'run'],
    'convert': ['tools/convert_official.py', 'parc_convnext', '{file}', 'out.pth'],
    'convert back': [
        'tools/convert_official.py',
        'parc_convnext',
        '{file}',
        'out.pth',
        '--to-official',
    ],
    'export': ['tools/export_onnx.py', CLS, '{file}', 'out.onnx', '--shape', '64', '64'],
    'draw kernels': ['tools/analysis/draw_kernels.py', CLS, '{file}', '--out', 'out'],
    'erf': ['tools/analysis/erf.py', '--config', CLS, '{file}', '--out', 'out'],
    'input sizes': ['tools/analysis/input_sizes.py', CLS, '{file}', '--out', 'out'],
    'compare predictions': [
        'tools/analysis/compare_predictions.py',
        *(CLS, 'none', CLS, '{file}', '--out', 'out'),
    ],
}
NEED_DATA = ('train', 'test', 'input', 'compare')
# In CI one kind a way, and of the ways that lead to the same loader some.
QUICK = ('train, backbone', 'train, resume', 'test', 'convert')


def check_way(way: str, kind: str, folder: Path, data: Callable[[str], Path]) -> str:
    """Fail unless a tool refuses a file in one line that names it, and runs nothing of it."""
    trace, path = folder / 'trace', folder / 'downloaded.pth'
    KINDS[kind](checkpoint_with(trace), path)
    assert not trace.exists()
    loads_carelessly(path)
    assert trace.exists(), 'the control: the code runs where loading is not safe'
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
    # Safe loading gives up at the first byte of a newer pickle.
    cause = 'cannot be read' if kind == 'pickle of today' else 'holds more than weights ('
    assert str(path) in errors[0] and cause in errors[0]
    assert path.read_bytes() == before
    made = [p for out in folder.glob('out*') for p in (out, *out.rglob('*')) if p.is_file()]
    assert not made, made  # some tools make the folder first
    return errors[0]


@needs_safe_loading
def test_no_way_in(full, record, data, tmp_path):
    tried = [(w, k) for w in WAYS for k in KINDS]
    if not full:
        tried = [(way, list(KINDS)[i % len(KINDS)]) for i, way in enumerate(QUICK)]
    held, failed = 0, []
    for i, (way, kind) in enumerate(tried):
        folder = tmp_path / str(i)
        folder.mkdir()
        try:
            print(f'{way}, {kind}: {check_way(way, kind, folder, data)}')
            held += 1
        except AssertionError as error:
            failed.append(f'{way}, {kind}: {error}')
    record('ways in with a checkpoint that holds code', len(tried), held)
    assert not failed, '\n'.join(failed)


# What is downloaded


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address of a folder on this machine, and the folder."""
    (folder := tmp_path / 'site').mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, 'log_message', lambda *args: None)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}', folder
        server.shutdown()


@pytest.fixture
def as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets mmengine load as it does by itself; what a test allows ends with it."""
    schemes = dict(CheckpointLoader._schemes, **{'': mmengine_checkpoint.load_from_local})
    monkeypatch.setattr(CheckpointLoader, '_schemes', schemes)
    monkeypatch.setattr(mmengine_checkpoint, 'load_url', torch.hub.load_state_dict_from_url)
    if hasattr(mmengine_checkpoint, '_safe_torch_load'):  # of onedl-mmengine
        careless = mmengine_checkpoint._safe_torch_load
        monkeypatch.setattr(mmengine_checkpoint, '_safe_torch_load', careless)
    if OLD_TORCH:
        yield
        return
    before = torch.serialization.get_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


@needs_safe_loading
def test_downloads(site, as_found, tmp_path, record):
    (address, folder), trace = site, tmp_path / 'trace'
    kinds = list(KINDS)[:2]  # the others are none that could be loaded
    for kind in kinds:
        KINDS[kind](checkpoint_with(trace), folder / f'{kind[-3:]}.pth')
    torch.save(dict(state_dict={'a': torch.ones(2)}), folder / 'good.pth')
    load = functools.partial(CheckpointLoader.load_checkpoint, map_location='cpu', logger='silent')
    load(f'{address}/{kinds[0][-3:]}.pth')
    assert trace.exists(), 'the control: mmengine by itself runs what it downloads'
    trace.unlink()

    engine.allow_mmengine_checkpoints()
    engine.allow_mmengine_checkpoints()  # twice is as once
    assert load(f'{address}/good.pth')['state_dict']['a'].tolist() == [1, 1]
    held = 0
    for kind in kinds:
        url = f'{address}/{kind[-3:]}.pth'
        with pytest.raises(engine.UserError, match=f"'{url}' holds more than weights") as error:
            load(url)
        assert '\n' not in str(error.value) and not trace.exists()
        held += 1
    record('downloaded checkpoints that hold code', len(kinds), held)


# Loaders


def script(path: Path) -> None:
    torch.jit.script(torch.nn.Linear(1, 1)).save(path)


@needs_safe_loading
@pytest.mark.parametrize(
    'write',
    [
        lambda path: torch.save(torch.nn.Linear(1, 1), path),
        lambda path: torch.save(dict(a=Path('x')), path),
        script,
    ],
    ids=['module', 'path', 'script'],
)
def test_what_else_is_more_than_weights(write, as_found, tmp_path):
    engine.allow_mmengine_checkpoints()
    write(path := tmp_path / 'a.pth')
    with pytest.raises(engine.UserError, match=r"a\.pth' holds more than weights"):
        CheckpointLoader.load_checkpoint(str(path))


@needs_safe_loading
def test_no_second_careless_try(as_found, monkeypatch, tmp_path):
    """onedl-mmengine has a loader that tries again without safety; here one that has it alone."""
    careless = functools.partial(torch.load, weights_only=False)
    monkeypatch.setattr(mmengine_checkpoint, '_safe_torch_load', careless, raising=False)
    trace, path = tmp_path / 'trace', tmp_path / 'a.pth'
    torch.save(checkpoint_with(trace), path)
    mmengine_checkpoint._safe_torch_load(path)
    assert trace.exists()
    trace.unlink()
    engine.allow_mmengine_checkpoints()
    with pytest.raises(pickle.UnpicklingError):
        mmengine_checkpoint._safe_torch_load(path)
    assert not trace.exists()


@needs_safe_loading
def test_what_is_broken_is_not_called_more(as_found, tmp_path):
    """Negative control: a file that is cut off is another trouble."""
    engine.allow_mmengine_checkpoints()
    torch.save(dict(a=torch.ones(100)), path := tmp_path / 'a.pth')
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RuntimeError, match='archive'):
        CheckpointLoader.load_checkpoint(str(path))
    path.write_text('no checkpoint')
    with pytest.raises(engine.UserError, match='cannot be read as a checkpoint'):
        CheckpointLoader.load_checkpoint(str(path))


@pytest.mark.parametrize(
    ('version', 'warns'),
    [('2.4.1', True), ('2.5.1+cpu', True), ('2.6.0', False), ('2.12.1', False)],
)
def test_older_torch_is_warned_of(version, warns, as_found, monkeypatch):
    if OLD_TORCH and not warns:
        pytest.skip('what needs no warning needs torch>=2.6')
    said = []
    monkeypatch.setattr(torch, '__version__', version)
    monkeypatch.setattr(
        'mmparc.engine.checkpoint.print_log',
        lambda message, logger, level: said.append((message, level)),
    )
    engine.allow_mmengine_checkpoints()
    assert len(said) == warns
    if warns:
        ((message, level),) = said
        assert level == logging.WARNING and 'CVE-2025-32434' in message and version in message
    assert (mmengine_checkpoint.load_url is torch.hub.load_state_dict_from_url) == warns
