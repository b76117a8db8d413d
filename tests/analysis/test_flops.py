"""Counts of multiply-adds against formulas by hand and numbers that are known."""

import copy
import functools
import itertools
import math
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from tool_calls import call, refusal
from torch import nn

from mmparc import engine
from mmparc.analysis.flops import Count, count_config, count_multiply_adds, input_size
from mmparc.models import ParCConv, ParCMixer
from mmparc.ops import BACKENDS

TOOL = 'analysis/get_flops.py'
CONFIGS = ROOT / 'configs'
XT = 'cls/convnext/{}convnext-xt_32xb128_in1k.py'
TOY = {
    'cls': 'cls/convnext/{}convnext-micro_toy.py',
    'det': 'det/convnext/centernet-update_{}convnext-micro_hrfpn_toy.py',
    'seg': 'seg/convnext/{}convnext-micro_upernet_toy.py',
}
MASK_RCNN = 'det/convnext/mask-rcnn_{}convnext-xt_fpn_1x_coco.py'


@functools.cache
def parsed(name: str) -> Config:
    return engine.load_config(name)


def load(name: str, parc: str = '', **options) -> Config:
    cfg = copy.deepcopy(parsed(str(CONFIGS / name.format(parc))))
    cfg.merge_from_dict(options)
    return cfg


# The operator


def by_hand(backend: str, conv: ParCConv, batch: int, height: int, width: int) -> int:
    """Multiply-adds of a ParCConv: its map, its embedding as one more line, and its kernel."""
    n, lines = (height, width) if conv.axis == 'h' else (width, height)
    lines *= batch
    c_in, c_out = conv.in_channels, conv.out_channels
    per_group = c_in // conv.groups
    kernels = c_out * per_group
    count = 0 if n == conv.kernel_size else 2 * n * (kernels + c_in)
    if backend == 'direct':  # every row sees 2n - 1, zeros among them
        return count + (lines + 1) * kernels * n * (2 * n - 1)
    if backend == 'matmul':
        return count + (lines + 1) * kernels * n**2
    frequencies = n // 2 + 1
    if per_group == 1:
        # Transforms of the map's lines, the embedding's, and the kernel; a product of both.
        one = 5 / 2 * n * math.log2(n) / 2
        count += sum(round(c * one) for c in (lines * c_in, lines * c_out, c_in, c_out, kernels))
        return count + 4 * (lines + 1) * c_out * frequencies
    # The same with transforms that are matrices of n x 2 frequencies. Those that are split see half
    # the map once for the even frequencies and once for as many odd ones.
    if n >= 32 and n % 2 == 0:
        even = len(range(0, frequencies, 2))
        frequencies, transform = 2 * even, 2 * (n // 2 * 2 * even)
    else:
        transform = n * 2 * frequencies
    count += ((lines + 1) * (c_in + c_out) + kernels) * transform
    return count + 4 * (lines + 1) * kernels * frequencies


@pytest.mark.parametrize('backend', BACKENDS)
def test_operator_by_hand(backend: str) -> None:
    sizes = (2, 14, 14), (1, 13, 17), (2, 50, 84), (1, 32, 30), (1, 33, 1)
    for groups, axis, (batch, *size) in itertools.product((6, 2, 1), 'hw', sizes):
        conv = ParCConv(6, 6, 14, axis, groups=groups, backend=backend)
        expected = by_hand(backend, conv, batch, *size)
        x = torch.zeros(batch, 6, *size)
        assert count_multiply_adds(conv, x) == Count(expected, expected, {}), (groups, axis, size)
    bare = ParCConv(6, 6, 14, 'h', bias=False, backend=backend)
    with_bias = ParCConv(6, 6, 14, 'h', backend=backend)
    assert count_multiply_adds(bare, x) == count_multiply_adds(with_bias, x)  # adding it is free


@pytest.mark.parametrize('backend', BACKENDS)
def test_only_the_outermost_layer_counts(backend: str) -> None:
    """A mixer with its two halves, and a layer along one axis beside it, each once."""
    mixer = ParCMixer(12, 14, backend=backend)
    conv = ParCConv(12, 6, 14, 'w', backend=backend)
    model = nn.Sequential(nn.Conv2d(12, 12, 1), nn.Sequential(mixer), conv)
    expected = sum(by_hand(backend, c, 2, 13, 17) for c in (mixer.conv_h, mixer.conv_w, conv))
    count = count_multiply_adds(model, torch.zeros(2, 12, 13, 17))
    assert count == Count(2 * 13 * 17 * 144 + expected, expected, {})


# Whole models


def test_known_models() -> None:
    """As upstream's metafiles and the papers have them."""
    for name, expected, params in (
        ('resnet/resnet50_8xb32_in1k.py', 4.1e9, 25_557_032),
        ('mobilevit/mobilevit-small_8xb128_in1k.py', 2.03e9, 5_578_632),
    ):
        report = count_config(engine.load_config(f'mmpretrain::{name}'))
        (count,) = report.counts.values()
        assert count.total == pytest.approx(expected, rel=0.02)
        assert (count.parc, count.unknown, report.params) == (0, {}, params)


def convnext_by_hand(depths: list[int], widths: list[int], size: int) -> int:
    """A ConvNeXt classifier's convolutions, linear layers, and norms at 5 a value."""
    count, channels = 0, 3
    for i, (depth, width) in enumerate(zip(depths, widths)):
        stride = 4 if i == 0 else 2
        before, size = size, size // stride
        count += 5 * (width * size**2 if i == 0 else channels * before**2)
        count += stride**2 * channels * width * size**2
        count += depth * size**2 * (49 * width + 8 * width**2 + 5 * width)
        channels = width
    return count + 5 * channels + 1000 * channels


def test_xt_by_hand() -> None:
    """The published table has 0.6 G for this model, about half of what its layers do."""
    (count,) = count_config(load(XT)).counts.values()
    expected = convnext_by_hand([3, 3, 9, 3], [48, 96, 192, 384], 224)
    assert count.total == expected == pytest.approx(1.15e9, rel=0.01)
    assert expected / 2 == pytest.approx(0.6e9, rel=0.05)


def test_parc_xt_by_hand() -> None:
    """The twin with the 7x7 of three blocks of stage 3 and one of stage 4 exchanged."""
    expected = convnext_by_hand([3, 3, 9, 3], [48, 96, 192, 384], 224)
    expected -= 3 * 49 * 192 * 14**2 + 49 * 384 * 7**2
    counts = count_config(load(XT, 'parc-')).counts
    assert tuple(counts) == BACKENDS
    for backend, count in counts.items():
        halves = [(3, 96, 14), (1, 192, 7)]
        parc = sum(
            blocks * by_hand(backend, ParCConv(half, half, n, axis, groups=half), 1, n, n)
            for blocks, half, n in halves
            for axis in 'hw'
        )
        assert (count.parc, count.total) == (parc, expected + parc)


@pytest.mark.parametrize(
    'task, size', [('cls', (97, 131)), ('det', (97, 131)), ('seg', (131, 97))], ids=str
)
def test_each_task_runs_at_any_size(task: str, size: tuple[int, int]) -> None:
    """Every backend as in one trace of the model with that backend."""
    cfg = load(TOY[task], 'parc-')
    report = count_config(cfg, size)
    assert report.size == size
    padded = (128, 160) if task == 'det' else size
    assert report.padded == padded
    rest = {count.total - count.parc for count in report.counts.values()}
    assert len(rest) == 1 and tuple(report.counts) == BACKENDS
    assert not any(count.unknown for count in report.counts.values())
    backend = {'cls': 'direct', 'det': 'matmul', 'seg': 'fft'}[task]
    assert report.counts[backend] == traced(cfg, report.padded, backend)
    costs = {name: report.counts[name].parc for name in ('direct', 'matmul', 'fft')}
    assert len(set(costs.values())) == 3  # the control


def traced(cfg, size: tuple[int, int], backend: str) -> Count:
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone.backend = backend
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).eval()
        return count_multiply_adds(model, torch.zeros(1, 3, *size))


def test_heads_see_all_the_proposals() -> None:
    """By hand: two linear layers, two outputs, and the mask head's five layers for each."""
    sizes = 12544 * 1024 + 1024 * 1024 + 1024 * (81 + 4 * 80)
    mask = 14 * 14 * (4 * 9 * 256 * 256 + 4 * 256 * 256) + 28 * 28 * 256 * 80
    totals = []
    for proposals in (6, 2, 6):
        cfg = load(MASK_RCNN, **{'model.test_cfg.rpn.max_per_img': proposals})
        (count,) = count_config(cfg, (64, 64)).counts.values()
        assert any('RoIAlign' in op for op in count.unknown)  # of which there is no count
        totals.append(count.total)
    assert totals[0] - totals[1] == 4 * (sizes + mask)
    assert totals[0] == totals[2], 'another draw of the weights'
    assert cfg.model.test_cfg.rpn.nms.iou_threshold == 0.7, 'the config is left alone'


# What is not known


class Odd(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv(super().forward(x)) * torch.fft.fft(x).real


def test_unknown_operations_are_reported() -> None:
    model = Odd(5)
    nn.init.normal_(model.bias)  # with 0 the matrix has no inverse
    count = count_multiply_adds(model, torch.randn(2, 3, 5, 5))
    assert count.total == 5 * 150
    assert count.unknown == {'aten::linalg_inv': 1, 'aten::fft_fft': 1, 'aten::real': 1}


# Sizes, and the tool


def test_a_config_says_its_size() -> None:
    ade20k = 'seg/convnext/convnext-xt_upernet_8xb2-amp-160k_ade20k-512x512.py'
    for name, size in (
        (XT, (224, 224)),
        (TOY['det'], (128, 160)),
        (MASK_RCNN, (800, 1333)),
        (ade20k, (512, 512)),
    ):
        assert input_size(load(name))[0] == size
    for task in ('cls', 'seg'):
        with pytest.raises(engine.UserError, match='--shape H W'):
            input_size(load(TOY[task]))


def test_tool(tmp_path: Path) -> None:
    options = {'model.test_cfg.rpn.max_per_img': 2}
    config, more = CONFIGS / MASK_RCNN.format('parc-'), [f'{k}={v}' for k, v in options.items()]
    printed = call(TOOL, config, '--shape', 64, 97, '--cfg-options', *more, cwd=tmp_path)
    report = count_config(load(MASK_RCNN, 'parc-', **options), (64, 97))
    assert f'{report.params:,}' in printed
    assert '64 x 97' in printed and '64 x 128' in printed  # padded
    lines = [line.split() for line in printed.splitlines() if line.startswith('|')]
    rows = {words[1]: words[3:] for words in lines[2:]}
    assert set(rows) == {*BACKENDS}
    for backend, count in report.counts.items():
        assert rows[backend][0] == f'{count.total / 1e9:.4f}'
        assert rows[backend][3] == f'{count.parc / 1e6:.3f}'
    (line,) = [line for line in printed.splitlines() if 'unknown' in line]
    assert 'NMSop x 1' in line and 'RoIAlignFunction' in line


def test_tool_refuses(tmp_path: Path) -> None:
    xt = CONFIGS / XT.format('')
    for args, named in (
        ([CONFIGS / TOY['seg'].format('')], '--shape'),
        ([xt, '--shape', 1, 2, 3], '[1, 2, 3]'),
        ([xt, '--shape', 0], '[0]'),
        ([xt, '--cfg-options', 'model.backbone.type=ConvNext'], "'ConvNeXt'"),
    ):
        assert named in refusal(TOOL, *args, cwd=tmp_path)
