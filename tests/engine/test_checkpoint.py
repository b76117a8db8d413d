"""What safe loading lets in, and that no code in a checkpoint runs, whichever way it is loaded.

Every attack is first loaded without care, where it must work: it writes a file, ``trace``.
The same files given to the tools are in tests/robustness/test_bad_input.py.
"""

import functools
import http.server
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import OLD_TORCH, needs_safe_loading
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, Runner
from toys import Toy, toy_runner

from mmparc import engine

load = functools.partial(CheckpointLoader.load_checkpoint, map_location='cpu', logger='silent')


pytestmark = pytest.mark.usefixtures('nothing_allowed')


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of mmengine's Runner."""
    folder = tmp_path_factory.mktemp('written')
    toy_runner(folder, default_hooks=dict(logger=dict(type='LoggerHook', interval=1))).train()
    return folder / 'epoch_1.pth'


@needs_safe_loading
def test_a_checkpoint_of_mmengine_is_loaded_once_allowed(written: Path) -> None:
    expected = torch.load(written, weights_only=False)
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
        torch.load(written, weights_only=True)
    engine.allow_mmengine_checkpoints()
    engine.allow_mmengine_checkpoints()  # twice is allowed
    safe = load(str(written))
    scalars = [c['message_hub']['log_scalars']['train/loss'] for c in (safe, expected)]
    for statistic in ('mean', 'max', 'min', 'current'):
        value, other = (buffer.statistics(statistic) for buffer in scalars)
        assert value == other > 0
    assert len(scalars[0].data[0]) == 3 and safe['meta']['epoch'] == 1
    torch.testing.assert_close(safe['state_dict'], expected['state_dict'], rtol=0, atol=0)


# Attacks


class Calls:
    """Pickles as the call of a function, which may be the result of another call."""

    def __init__(self, function, *args) -> None:
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args

    def __call__(self) -> None:
        """pickle asks that a function can be called."""


def out_of_history_buffer(code: str) -> Calls:
    """getattr(HistoryBuffer, '__init__').__globals__.get('__builtins__').get('eval')(code)"""
    module = Calls(getattr, HistoryBuffer.__init__, '__globals__')
    builtins = Calls(Calls(getattr, module, 'get'), '__builtins__')
    return Calls(Calls(Calls(getattr, builtins, 'get'), 'eval'), code)


ATTACKS: dict[str, Callable[[str], Calls]] = {
    'system': lambda file: Calls(os.system, f'touch {file}'),
    'exec': lambda file: Calls(exec, f'open({file!r}, "w").close()'),
    'tofile': lambda file: Calls(np.ones(1).tofile, file),
    'eval by getattr': lambda file: out_of_history_buffer(f'open({file!r}, "w").close()'),
}


def careless(path: Path | str) -> None:
    torch.load(path, weights_only=False)


WAYS: dict[str, Callable[[str], object]] = {
    'mmengine': load,
    'a tool': engine.load_weights_only,
    'weights_only=False': careless,
    'load_from': lambda path: engine.check_loaded_share(Toy(), path, 0.5),
    'test': lambda path: engine.check_whole_model(Toy(), path),
    'resume': lambda path: engine.take_up_seed(Config(dict(load_from=path, work_dir='.'))),
}


@needs_safe_loading
def test_no_attack_runs_by_any_way(written: Path, tmp_path: Path) -> None:
    trace, files = tmp_path / 'trace', {}
    checkpoint = torch.load(written, weights_only=False)
    for name, attack in ATTACKS.items():
        files[name] = path = tmp_path / f'{name}.pth'
        zipped = name != 'tofile'  # the other format is that of torch before 1.6
        attacked = {**checkpoint, 'message_hub': attack(str(trace))}
        torch.save(attacked, path, _use_new_zipfile_serialization=zipped)
        careless(path)
        assert trace.exists(), f'control: {name} runs where loading is not safe'
        trace.unlink()
    engine.allow_mmengine_checkpoints()
    for name, path in files.items():
        before = path.read_bytes()
        for way, read in WAYS.items():
            with pytest.raises((engine.UserError, pickle.UnpicklingError)) as error:
                read(str(path))
            assert not trace.exists(), (name, way)
            if way != 'weights_only=False':
                said = str(error.value)
                assert error.type is engine.UserError and '\n' not in said and str(path) in said
                assert 'weights_only' not in said, 'no advice to load without care'
                assert name.split()[0] in said or 'getattr' in name or name == 'tofile', said
        assert path.read_bytes() == before


@needs_safe_loading
def test_downloads_are_loaded_safely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site := tmp_path / 'site').mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, 'log_message', lambda *args: None)
    models: dict[str, str] = {}
    for name in ('get_torchvision_models', 'get_external_models'):
        monkeypatch.setattr(f'mmengine.runner.checkpoint.{name}', lambda: models)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    trace = tmp_path / 'trace'
    attack = dict(state_dict={}, meta=ATTACKS['exec'](str(trace)))
    torch.save(attack, site / 'zip.pth')
    torch.save(attack, site / 'old.pth', _use_new_zipfile_serialization=False)
    torch.save(dict(state_dict={'a': torch.ones(2)}), site / 'good.pth')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        load(f'{address}/zip.pth')
        assert trace.exists(), 'control: mmengine by itself runs what it downloads'
        trace.unlink()
        engine.allow_mmengine_checkpoints()
        assert load(f'{address}/good.pth')['state_dict']['a'].tolist() == [1, 1]
        models |= {name: f'{address}/{name}.pth' for name in ('good', 'zip', 'old', 'missing')}
        for scheme in ('torchvision', 'openmmlab', 'open-mmlab'):
            assert load(f'{scheme}://good')['state_dict']['a'].tolist() == [1, 1]
            models |= {f'{scheme}://{name}': '' for name in ('zip', 'old', 'missing', 'unknown')}
        for name in (f'{address}/zip.pth', f'{address}/old.pth', *(n for n in models if '//' in n)):
            with pytest.raises(engine.UserError, match=rf'^[^\n]*{name}[^\n]*$'):
                load(name)
            assert not trace.exists()
        server.shutdown()


@needs_safe_loading
def test_a_config_in_a_checkpoint_is_not_run(written: Path, tmp_path: Path) -> None:
    """mmengine's resume evaluates the text meta['config'] as Python."""
    trace, path = tmp_path / 'trace', tmp_path / 'a.pth'
    checkpoint = torch.load(written, weights_only=False)
    checkpoint['meta']['config'] = f'open({str(trace)!r}, "w").close()'
    torch.save(checkpoint, path)
    engine.allow_mmengine_checkpoints()
    for kind, ran in ((Runner, True), (engine.ResumableRunner, False)):
        runner = toy_runner(tmp_path / kind.__name__, kind, load_from=str(path), resume=True)
        runner.train()
        assert runner.epoch == 1
        assert trace.exists() == ran, 'control: mmengine runs it' if ran else 'the code ran'
        trace.unlink(missing_ok=True)


# Files that hold something else


@needs_safe_loading
def test_other_files_are_one_line(written: Path, tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    engine.allow_mmengine_checkpoints()
    whole = written.read_bytes()
    contents = {
        'a module': lambda: torch.save(torch.nn.Linear(1, 1), path),
        'an object': lambda: torch.save(dict(a=Path('x')), path),
        'TorchScript': lambda: torch.jit.script(torch.nn.Linear(1, 1)).save(path),
        'a new pickle': lambda: path.write_bytes(pickle.dumps({'a': 1})),
        'a cut file': lambda: path.write_bytes(whole[: len(whole) // 2]),
        'a text': lambda: path.write_text('no checkpoint'),
        'nothing': lambda: path.write_bytes(b''),
    }
    for name, write in contents.items():
        write()
        for read in (load, engine.load_weights_only):
            with pytest.raises(engine.UserError, match=r'^[^\n]+$') as error:
                read(str(path))
            assert str(path) in str(error.value), name


def test_older_torch_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr('mmparc.engine.checkpoint.print_log', lambda *log: said.append(log[0]))
    for version in ('2.4.1', '2.12.1')[: 1 if OLD_TORCH else 2]:
        monkeypatch.setattr(torch, '__version__', version)
        engine.allow_mmengine_checkpoints()
    assert len(said) == 1 and 'CVE-2025-32434' in said[0] and '2.4.1' in said[0]
