"""train.py and test.py as a user runs them: each task is trained, tested, resumed.

All of it in processes of their own, on a few small images. The number of steps is cut through
--cfg-options and nothing else.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, run_tool
from mmengine.registry import MODELS, DefaultScope
from tool_calls import assert_picture, call

from mmparc.analysis.logs import read_scalars, read_starts
from mmparc.datasets import make_toy_data
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
FAMILIES = sorted(path.name for path in ROOT.glob('configs/cls/*/'))
METRICS = {'cls': 'accuracy/top1', 'det': 'coco/bbox_mAP_50', 'seg': 'mIoU'}


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory):
    """Gives the root of a task's small data, made once."""
    out = tmp_path_factory.mktemp('data')

    @functools.cache
    def make(task: str) -> Path:
        make_toy_data(out, task, train=TRAIN, val=VAL)
        return out / task

    return make


def run(tool: str, *args: object, cwd: Path) -> str:
    """Run a tool that must succeed; what it printed."""
    result = run_tool(tool, *args, cwd=cwd)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


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


def start_from(checkpoint: Path) -> list[str]:
    """--cfg-options that start a backbone from a classifier."""
    key = 'model.backbone.init_cfg'
    return [f'{key}.type=Pretrained', f'{key}.checkpoint={checkpoint}', f'{key}.prefix=backbone.']


def toy_leaf(task: str, family: str) -> Path:
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
    """The checkpoint after so many steps, which is the latest, and its content."""
    name = f'iter_{steps}.pth' if task == 'seg' else f'epoch_{steps * BATCH // TRAIN}.pth'
    path = work_dir / name
    assert Path((work_dir / 'last_checkpoint').read_text()) == path
    # mmengine wrote it a moment ago
    checkpoint = torch.load(path, map_location='cpu', weights_only=False)
    states = checkpoint['optimizer']['state'].values()
    assert {int(state['step']) for state in states} == {steps} == {checkpoint['meta']['iter']}
    return path, checkpoint


def assert_goes_back(classifier: Path, trained: dict, downstream: dict) -> None:
    """A detector's or segmentor's backbone is, strictly, all of the classifier's."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(load_config(str(classifier)).model)
    back = {k: downstream.get(k, v) for k, v in trained.items()}
    shared = [k for k in back if k.startswith('backbone.')]
    assert shared and not [k for k in shared if k not in downstream]
    model.load_state_dict(back, strict=True)


def test_the_whole_way(data, tmp_path: Path) -> None:
    """A classifier starts a detector and a segmentor; each is trained, tested, drawn, resumed.

    Their images have other sizes, so that kernels and embeddings are resized on the way.
    """
    start, trained = [], {}
    for task, config in CONFIGS.items():
        root, work_dir = data(task), tmp_path / 'work_dirs' / task / config.stem
        # --resume, as a cluster's script gives it each time, begins where there is nothing yet
        args = [config, '--resume', '--min-loaded', 1, *short(task, root, 2), *start]
        printed = run('tools/train.py', *args, cwd=tmp_path)
        assert list(rates(work_dir)) == [1, 2]
        first, checkpoint = checkpoint_after(task, work_dir, 2)
        if task == 'cls':
            start, trained = start_from(first), checkpoint['state_dict']
        else:
            assert '100.0% of' in printed and ' (interpolate)' in printed  # resized
            assert_goes_back(CONFIGS['cls'], trained, checkpoint['state_dict'])

        # tested, and drawn
        args = [config, first, '--work-dir', f'test-{task}', '--show-dir', f'shown-{task}']
        run('tools/test.py', *args, '--cfg-options', f'data_root={root}', cwd=tmp_path)
        pictures = [p for p in tmp_path.glob(f'shown-{task}/**/*') if p.suffix in ('.png', '.jpg')]
        assert len(pictures) >= (1 if task == 'cls' else VAL)  # mmpretrain draws every 5000th
        assert_picture(pictures[0], width=60)
        metrics = json.loads(max(tmp_path.glob(f'test-{task}/*/*.json')).read_text())
        step = 2 if task == 'seg' else 1
        if task != 'det':  # which gives no metrics while it finds nothing
            assert 0 <= metrics[METRICS[task]] <= 100
            validated = final_metrics(work_dir, step)  # the same checkpoint on the same images
            assert validated == pytest.approx({key: metrics[key] for key in validated})

        # resumed for two more; by name where a name can be given, and from the latest
        resume = ['--resume', first] if task == 'det' else ['--resume']
        run('tools/train.py', config, *resume, *short(task, root, 4), cwd=tmp_path)
        assert list(rates(work_dir)) == [3, 4]
        checkpoint_after(task, work_dir, 4)
        # both runs are one, and in one picture
        steps, validations = read_scalars(work_dir)
        assert [record['iter'] for record in steps] == [1, 2, 3, 4]
        assert (np.diff([record['lr'] for record in steps]) > 0).all()  # warm-up
        assert [record['step'] for record in validations] == [step, 2 * step]
        call('analysis/plot.py', 'curves', work_dir, cwd=tmp_path)

    # the control: without --resume it starts again, here at another rate
    task, config = 'cls', CONFIGS['cls']
    work_dir = tmp_path / 'work_dirs/cls' / config.stem
    args = [config, '--auto-scale-lr', *short(task, data(task), 2)]
    run('tools/train.py', *args, 'visualizer.vis_backends.0.type=LocalVisBackend', cwd=tmp_path)
    assert list(rates(work_dir)) == [1, 2]
    checkpoint_after(task, work_dir, 2)
    cfg = load_config(str(config))
    scale = BATCH / cfg.auto_scale_lr.base_batch_size
    assert scale != 1
    # what each start recorded of itself
    records = read_starts(work_dir)
    for record, factor, resumed in zip(records, (1, 1, scale), (False, True, False), strict=True):
        assert record['lr'] == pytest.approx(cfg.optim_wrapper.optimizer.lr * factor)
        assert (record['batch_size'], record['resumed']) == (BATCH, resumed)


@pytest.mark.full
@pytest.mark.parametrize('family', FAMILIES)
def test_from_classification_to_detection_and_segmentation(family: str, data, tmp_path: Path):
    """A short run of each family on each task; the classifier's backbone starts the others."""
    classifier = toy_leaf('cls', family)
    run('tools/train.py', classifier, *short('cls', data('cls'), 2), cwd=tmp_path)
    first, trained = checkpoint_after('cls', tmp_path / 'work_dirs/cls' / classifier.stem, 2)
    for task in ('det', 'seg'):
        config = toy_leaf(task, family)
        options = [*short(task, data(task), 2), *start_from(first)]
        printed = run('tools/train.py', config, '--min-loaded', 1, *options, cwd=tmp_path)
        assert '100.0% of' in printed and ' (interpolate)' in printed  # resized
        _, downstream = checkpoint_after(task, tmp_path / 'work_dirs' / task / config.stem, 2)
        assert_goes_back(classifier, trained['state_dict'], downstream['state_dict'])


@pytest.mark.full
def test_an_untrained_detector_finds_nothing(data, tmp_path: Path) -> None:
    # The weights are this seed's: of eight images one guess may be right.
    options = ['--work-dir', 'test', '--cfg-options', f'data_root={data("det")}']
    run('tools/test.py', CONFIGS['det'], 'none', *options, 'randomness.seed=0', cwd=tmp_path)
    metrics = json.loads(max((tmp_path / 'test').glob('*/*.json')).read_text())
    assert metrics.get(METRICS['det'], 0) < 0.05


@pytest.mark.full
def test_tensorboard_as_the_readme_says(data, tmp_path: Path) -> None:
    options = 'visualizer.vis_backends.0.type=TensorboardVisBackend'
    assert options in (ROOT / 'README.md').read_text()
    run('tools/train.py', CONFIGS['cls'], *short('cls', data('cls'), 2), options, cwd=tmp_path)
    (events,) = tmp_path.glob('work_dirs/**/events.out.tfevents.*')
    assert b'loss' in events.read_bytes()
    assert not list(tmp_path.glob('work_dirs/**/scalars.json'))


def test_refusals(data, tmp_path: Path) -> None:
    """One line that names the cause, and nothing is left behind."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    wrong = 'configs/det/convnext/centernet-update_parc-convnext-mirco_hrfpn_toy.py'
    cls, here = CONFIGS['cls'], ['--cfg-options', f'data_root={data("cls")}']
    backbone = 'model.backbone.type=mmparc.ParCConvNext'
    for tool, *args, named in (
        ('train', wrong, wrong.replace('mirco', 'micro')),
        ('test', wrong, 'none', wrong.replace('mirco', 'micro')),
        ('train', CONFIGS['det'], '--cfg-options', backbone, 'mmparc.ParCConvNeXt'),
        ('train', CONFIGS['seg'], '--cfg-options', 'data_root=no/such/place', 'no/such/place'),
        ('train', MASK_RCNN, '--no-pretrained'),
        ('train', MASK_RCNN, '--no-pretrained', 'data/coco/'),
        ('train', cls, '--amp', '--no-amp'),
        ('train', RETINANET, 'data/coco/'),
        ('train', 'mmdet::no/such.py', 'no/such.py'),
        ('train', cls, '--resume', 'no.pth', *here, 'no.pth'),
        ('test', cls, 'no.pth', *here, 'no.pth'),
    ):
        before = sorted(tmp_path.rglob('*'))
        result = run_tool(f'tools/{tool}.py', *args, cwd=tmp_path)
        assert (result.returncode, result.stdout) == (1, ''), (args, result.stderr)
        (line,) = result.stderr.splitlines()
        assert line.startswith('error: ') and named in line
        assert sorted(tmp_path.rglob('*')) == before
