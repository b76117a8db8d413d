"""The tools as a user runs them: each task is trained, tested, resumed; errors are one line.

All of it in processes of their own, on a few small images. The number of steps is cut through
--cfg-options and nothing else.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT, run_tool
from mmengine.registry import MODELS, DefaultScope

from mmparc.analysis.logs import read_scalars, read_starts
from mmparc.engine import load_config
from mmparc.results.collect import final_metrics

CONFIGS = {
    'cls': ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py',
    'det': ROOT / 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py',
    'seg': ROOT / 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py',
}
MASK_RCNN = ROOT / 'configs/det/convnext/mask-rcnn_parc-convnext-xt_fpn_1x_coco.py'
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
TRAIN, VAL, BATCH = 16, 8, 8  # images, and images in a step: two steps an epoch
SIZES = ('--train', TRAIN, '--val', VAL)
FAMILIES = sorted(path.name for path in ROOT.glob('configs/cls/*/'))
METRICS = {'cls': 'accuracy/top1', 'det': 'coco/bbox_mAP_50', 'seg': 'mIoU'}
TOOLS = sorted(path for path in ROOT.glob('tools/**/*') if path.suffix in ('.py', '.sh'))
# doctor.py says which packages are missing; try_stacks.py makes environments of its own.
NEED_NONE = ('doctor.py', 'try_stacks.py')
NEED_PACKAGES = [path for path in TOOLS if path.suffix == '.py' and path.name not in NEED_NONE]


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory):
    """Gives the root of a task's small data, made once."""
    out = tmp_path_factory.mktemp('data')

    @functools.cache
    def make(task: str) -> Path:
        run('tools/make_toy_data.py', '--out', out, '--tasks', task, *SIZES, cwd=out)
        return out / task

    return make


def run(tool: str, *args: object, cwd: Path, fresh: bool = False) -> str:
    """Run a tool that must succeed; what it printed."""
    result = run_tool(tool, *args, cwd=cwd, fresh=fresh)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


def error_line(tool: str, *args: object, cwd: Path, fresh: bool = False) -> str:
    """Run a tool that must fail; the one line that it says."""
    before = sorted(cwd.rglob('*'))
    result = run_tool(tool, *args, cwd=cwd, fresh=fresh)
    assert (result.returncode, result.stdout) == (1, ''), result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ')
    assert sorted(cwd.rglob('*')) == before, 'a refused run leaves nothing behind'
    return line


def short(task: str, root: Path, steps: int) -> list[str]:
    """--cfg-options that train for ``steps`` steps, two an epoch, and log each."""
    epochs = steps * BATCH // TRAIN
    length = f'max_iters={steps}' if task == 'seg' else f'max_epochs={epochs}'
    period = 2 if task == 'seg' else 1
    return [
        '--cfg-options',
        f'data_root={root}',
        f'train_dataloader.batch_size={BATCH}',
        f'train_cfg.{length}',
        f'train_cfg.val_interval={period}',
        f'default_hooks.checkpoint.interval={period}',
        'default_hooks.logger.interval=1',
    ]


def small_leaf(task: str, family: str) -> Path:
    leaves = ROOT.glob(f'configs/{task}/{family}/*parc*_toy.py')
    (config,) = (leaf for leaf in leaves if '_relations_' not in leaf.name)
    return config


def rates(work_dir: Path) -> dict[int, float]:
    """The iterations that a work directory's latest run logged, with their learning rates."""
    latest = max(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in latest.read_text().splitlines()]
    trained = [record for record in records if 'loss' in record]
    assert np.isfinite([record['loss'] for record in trained]).all()
    return {record['iter']: record['lr'] for record in trained}


def checkpoint_after(task: str, work_dir: Path, steps: int) -> tuple[Path, dict]:
    """The checkpoint after so many steps, which is the latest, and what it holds."""
    name = f'iter_{steps}.pth' if task == 'seg' else f'epoch_{steps * BATCH // TRAIN}.pth'
    path = work_dir / name
    assert Path((work_dir / 'last_checkpoint').read_text()) == path
    # mmengine wrote it a moment ago
    return path, torch.load(path, map_location='cpu', weights_only=False)


def optimizer_steps(checkpoint: dict) -> set[int]:
    return {int(state['step']) for state in checkpoint['optimizer']['state'].values()}


def metrics_of(work_dir: Path) -> dict:
    return json.loads(max(work_dir.glob('*/*.json')).read_text())


def assert_pictures(directory: Path, at_least: int) -> None:
    pictures = [path for path in directory.rglob('*') if path.suffix in ('.png', '.jpg')]
    assert len(pictures) >= at_least
    for path in pictures:
        assert_no_blank(path)


def assert_no_blank(path: Path) -> None:
    picture = cv2.imread(str(path))
    assert picture is not None and min(picture.shape[:2]) >= 64
    assert picture.std() > 5 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


# The whole way


@pytest.mark.slow
@pytest.mark.parametrize('task', CONFIGS)
def test_train_test_and_resume(task: str, data, tmp_path: Path) -> None:
    root, config = data(task), CONFIGS[task]
    work_dir = tmp_path / 'work_dirs' / task / config.stem

    # trained for two steps into the default work directory, in an interpreter of its own (for
    # detection the demo in test_readme.py does that)
    fresh = task != 'det'
    # --resume, as a cluster's script gives it each time, begins where there is nothing yet
    said = run(
        'tools/train.py', config, '--resume', *short(task, root, 2), cwd=tmp_path, fresh=fresh
    )
    assert 'has no checkpoint to resume: a new run' in said
    warm_up = rates(work_dir)
    assert list(warm_up) == [1, 2]
    first, checkpoint = checkpoint_after(task, work_dir, 2)
    assert optimizer_steps(checkpoint) == {2}

    # tested, and drawn
    shown = tmp_path / 'shown'
    options = ['--cfg-options', f'data_root={root}']
    test_dir = ['--work-dir', tmp_path / 'test', '--show-dir', shown]
    said = run('tools/test.py', config, first, *test_dir, *options, cwd=tmp_path)
    assert f' pictures in {shown}' in said
    metrics = metrics_of(tmp_path / 'test')
    if task != 'det':  # which gives no metrics as long as it finds nothing
        assert 0 <= metrics[METRICS[task]] <= 100
    step = 2 if task == 'seg' else 1
    validated = final_metrics(work_dir, step)
    if task != 'det':  # the same checkpoint on the same images
        assert validated == pytest.approx({key: metrics[key] for key in validated})
    assert_pictures(shown, at_least=1 if task == 'cls' else VAL)  # mmpretrain draws every 5000th

    # resumed for two more; by name where a name can be given, and from the latest
    resume = ['--resume', first] if task == 'det' else ['--resume']
    run('tools/train.py', config, *resume, *short(task, root, 4), cwd=tmp_path)
    warm_up |= rates(work_dir)
    assert list(warm_up) == [1, 2, 3, 4] and list(rates(work_dir)) == [3, 4]
    assert (np.diff(list(warm_up.values())) > 0).all()
    _, checkpoint = checkpoint_after(task, work_dir, 4)
    assert optimizer_steps(checkpoint) == {4}
    assert checkpoint['meta']['iter'] == 4
    assert checkpoint['meta']['epoch'] == (0 if task == 'seg' else 2)

    # both runs are one, and in one picture
    steps, validations = read_scalars(work_dir)
    assert [record['iter'] for record in steps] == [1, 2, 3, 4]
    assert [record['step'] for record in validations] == [step, 2 * step]
    run('tools/analysis/plot_curves.py', work_dir, cwd=tmp_path)
    assert_no_blank(work_dir / 'curves.png')

    # the control: without --resume it starts again (and with --auto-scale-lr at another rate)
    run('tools/train.py', config, '--auto-scale-lr', *short(task, root, 2), cwd=tmp_path)
    assert list(rates(work_dir)) == [1, 2]
    steps, validations = read_scalars(work_dir)
    assert [record['iter'] for record in steps] == [1, 2] and len(validations) == 1
    _, again = checkpoint_after(task, work_dir, 2)
    cfg = load_config(str(config))
    scale = BATCH / cfg.auto_scale_lr.base_batch_size
    for saved, factor in ((checkpoint, 1), (again, scale)):
        for group in saved['optimizer']['param_groups']:
            expected = cfg.optim_wrapper.optimizer.lr * factor
            assert group['initial_lr'] == pytest.approx(expected)
    assert scale != 1

    # what each start recorded of itself
    records = read_starts(work_dir)
    for record, factor, resumed in zip(records, (1, 1, scale), (False, True, False), strict=True):
        assert record['lr'] == pytest.approx(cfg.optim_wrapper.optimizer.lr * factor)
        assert (record['batch_size'], record['resumed']) == (BATCH, resumed)


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES)
def test_from_classification_to_detection_and_segmentation(family: str, data, tmp_path: Path):
    """A short run of each family on each task; the classifier's backbone starts the others, whole.

    Its images have another size, so that kernels and embeddings are resized on the way.
    """
    classifier = small_leaf('cls', family)
    run('tools/train.py', classifier, *short('cls', data('cls'), 2), cwd=tmp_path)
    first, trained = checkpoint_after('cls', tmp_path / 'work_dirs/cls' / classifier.stem, 2)
    start = 'model.backbone.init_cfg'
    start = [f'{start}.type=Pretrained', f'{start}.checkpoint={first}', f'{start}.prefix=backbone.']
    for task in ('det', 'seg'):
        config = small_leaf(task, family)
        options = [*short(task, data(task), 2), *start]
        said = run('tools/train.py', config, '--min-loaded', 1, *options, cwd=tmp_path)
        assert f'100.0% of {first} is loaded into backbone' in said
        assert ' (interpolate)' in said  # something was resized
        _, downstream = checkpoint_after(task, tmp_path / 'work_dirs' / task / config.stem, 2)
        # and back, strictly: all of the classifier's backbone is there
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(load_config(str(classifier)).model)
        back = {k: downstream['state_dict'].get(k, v) for k, v in trained['state_dict'].items()}
        shared = [k for k in back if k.startswith('backbone.')]
        assert shared and not [k for k in shared if k not in downstream['state_dict']]
        model.load_state_dict(back, strict=True)


@pytest.mark.slow
def test_an_untrained_detector_finds_nothing(data, tmp_path: Path) -> None:
    # The weights are this seed's: of eight images one guess may be right.
    options = ['--work-dir', 'test', '--cfg-options', f'data_root={data("det")}']
    options.append('randomness.seed=0')
    said = run('tools/test.py', CONFIGS['det'], 'none', *options, cwd=tmp_path)
    assert 'Evaluating bbox' in said
    assert metrics_of(tmp_path / 'test').get(METRICS['det'], 0) < 0.05


@pytest.mark.slow
def test_tensorboard_as_the_readme_says(data, tmp_path: Path) -> None:
    options = 'visualizer.vis_backends.0.type=TensorboardVisBackend'
    assert options in (ROOT / 'README.md').read_text()
    run('tools/train.py', CONFIGS['cls'], *short('cls', data('cls'), 2), options, cwd=tmp_path)
    (events,) = tmp_path.glob('work_dirs/**/events.out.tfevents.*')
    assert b'loss' in events.read_bytes()
    assert not list(tmp_path.glob('work_dirs/**/scalars.json'))


# What is wrong is one line


@pytest.mark.parametrize('tool', ['tools/train.py', 'tools/test.py'])
def test_wrong_config(tool: str, tmp_path: Path) -> None:
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    wrong = 'configs/det/convnext/centernet-update_parc-convnext-mirco_hrfpn_toy.py'
    checkpoint = ['none'] if tool == 'tools/test.py' else []
    line = error_line(tool, wrong, *checkpoint, cwd=tmp_path, fresh=tool == 'tools/train.py')
    assert wrong in line and f"did you mean '{wrong.replace('mirco', 'micro')}'?" in line


@pytest.mark.parametrize(
    'args, cause, fix',
    [
        (
            [CONFIGS['det'], '--cfg-options', 'model.backbone.type=mmparc.ParCConvNext'],
            "unknown backbone 'mmparc.ParCConvNext'",
            "did you mean 'mmparc.ParCConvNeXt'?",
        ),
        (
            [CONFIGS['seg'], '--cfg-options', 'data_root=no/such/place'],
            "no data root 'no/such/place'",
            'python -m mmparc make_toy_data',
        ),
        (
            [MASK_RCNN],
            "checkpoint 'work_dirs/cls/parc-convnext-xt_8xb128-100e_in1k/epoch_100.pth'",
            '--no-pretrained',
        ),
        ([MASK_RCNN, '--no-pretrained'], "no data root 'data/coco/'", 'data_root=DIR'),
        ([CONFIGS['cls'], '--amp'], 'mixed precision needs a GPU', '--no-amp'),
        ([RETINANET], "no data root 'data/coco/'", 'data_root=DIR'),
        (['mmdet::no/such.py'], "ships no config 'no/such.py'", 'lie in'),
    ],
    ids=['backbone', 'data', 'pretrained', 'no pretrained', 'amp', 'upstream', 'not upstream'],
)
def test_wrong_arguments(args: list, cause: str, fix: str, tmp_path: Path) -> None:
    line = error_line('tools/train.py', *args, cwd=tmp_path)
    assert cause in line and fix in line


@pytest.mark.parametrize(
    'tool, args', [('tools/train.py', ['--resume', 'no.pth']), ('tools/test.py', ['no.pth'])]
)
def test_missing_checkpoint(tool: str, args: list[str], data, tmp_path: Path) -> None:
    options = ['--cfg-options', f'data_root={data("cls")}']
    line = error_line(tool, CONFIGS['cls'], *args, *options, cwd=tmp_path)
    assert "no checkpoint 'no.pth'" in line


def test_curves_of_nothing(tmp_path: Path) -> None:
    line = error_line('tools/analysis/plot_curves.py', tmp_path, cwd=tmp_path)
    assert str(tmp_path) in line and 'holds no training log' in line


def test_dist_train_says_how_to_use_it() -> None:
    tool = ROOT / 'tools/dist_train.sh'
    for args in ([], ['config.py']):
        result = subprocess.run([tool, *args], capture_output=True, text=True)
        assert result.returncode != 0 and result.stdout == ''
        (line,) = result.stderr.splitlines()
        assert line.startswith('error: ') and 'CONFIG GPUS' in line


@pytest.mark.parametrize('tool', NEED_PACKAGES, ids=lambda path: path.name)
def test_started_without_the_packages(tool: Path, tmp_path: Path) -> None:
    command = [sys.executable, '-I', '-S', tool]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, '')
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ') and 'is not installed in this Python' in line
    assert 'make env' in line and '.venv/bin/activate' in line
    assert "pip install 'mmparc[mm]'" in line


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.name)
def test_tools_have_their_run_bit(tool: Path) -> None:
    assert os.access(tool, os.X_OK)
    assert tool.read_text().startswith('#!')
