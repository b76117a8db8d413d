"""Multi-scale batches: which sizes, when, the same on every rank, and what the pixels become."""

from collections import Counter

import pytest
import torch
from helpers import assert_close, relative_error
from mmengine.logging import MessageHub
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample

from mmparc.models import MultiScaleClsDataPreprocessor

SIZES = [160, 192, 256, 288, 320]
SMALL = [5, 6, 8, 9, 10]
NORMALIZATION = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])


@pytest.fixture(autouse=True)
def runner_at():
    """Sets the iteration that a Runner would have counted; None for no Runner."""
    info = MessageHub.get_current_instance().runtime_info
    before = info.get('iter')

    def runner_at(iteration):
        info['iter'] = iteration

    runner_at(0)
    yield runner_at
    runner_at(before)


def preprocessor(sizes=SIZES, **options):
    return MultiScaleClsDataPreprocessor(sizes, **NORMALIZATION, **options)


def batch(height=320, width=320):
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    images = torch.arange(height)[:, None] + torch.arange(width)
    return dict(inputs=images.expand(2, 3, -1, -1) % 256, data_samples=samples)


def drawn(model, runner_at, iterations):
    sizes = []
    for iteration in iterations:
        runner_at(iteration)
        sizes.append(tuple(model(batch(8, 8), training=True)['inputs'].shape[-2:]))
    return sizes


def test_each_size_as_often(runner_at) -> None:
    count = Counter(drawn(preprocessor(SMALL), runner_at, range(500)))
    assert count.keys() == {(size, size) for size in SMALL}
    # 100 each, the standard deviation being 9
    assert 65 < min(count.values()) <= max(count.values()) < 135, count


def test_the_iteration_alone_decides(runner_at) -> None:
    """Another rank, or a run resumed in the middle, draws the same; global generators play no part.

    Controls: another seed, and sizes that do not simply repeat.
    """
    whole = drawn(preprocessor(SMALL), runner_at, range(40))
    torch.manual_seed(5)
    assert drawn(preprocessor(SMALL), runner_at, range(20, 40)) == whole[20:]
    assert drawn(preprocessor(SMALL, seed=1), runner_at, range(40)) != whole
    assert whole[:20] != whole[20:]


@pytest.mark.parametrize('size', [(224, 224), (200, 336), (97, 131), (131, 97)], ids=str)
def test_what_the_pixels_become(size) -> None:
    """Ramps along H and W stay ramps, and height and width are not exchanged."""
    height, width = 320, 240
    rows, columns = torch.arange(320.0)[:, None], torch.arange(240.0)
    image = torch.stack([t.expand(height, width) for t in (rows, columns, torch.tensor(7.0))])
    model = MultiScaleClsDataPreprocessor([size])
    result = model(dict(inputs=image[None], data_samples=None), training=True)['inputs'][0]
    assert result.shape == (3, *size)
    # Pixel i of n lies where (i + 0.5) * length / n - 0.5 was; at the borders ramps are flatter.
    rows = ((torch.arange(size[0]) + 0.5) * height / size[0] - 0.5)[:, None].expand(size)
    columns = ((torch.arange(size[1]) + 0.5) * width / size[1] - 0.5).expand(size)
    expected = torch.stack([rows, columns, torch.full(size, 7.0)])
    inner = (slice(8, -8), slice(8, -8))
    for channel, wanted in zip(result, expected, strict=True):
        assert_close(channel[inner], wanted[inner], 1e-3)
    assert relative_error(result[0][inner], expected[1][inner]) > 0.1


def test_shrinking_does_not_alias() -> None:
    """Stripes finer than the new pixels become their mean, not other stripes."""
    stripes = (torch.arange(320) % 2 * 2.0).expand(1, 3, 320, 320)
    model = MultiScaleClsDataPreprocessor([120])
    shrunk = model(dict(inputs=stripes, data_samples=None), training=True)['inputs']
    assert (shrunk[..., 4:-4] - 1).abs().max() < 0.2
    plain = torch.nn.functional.interpolate(stripes, 120, mode='bilinear')  # the control
    assert (plain[..., 4:-4] - 1).abs().max() > 0.6


@pytest.mark.parametrize('training', [False, True])
def test_all_else_is_the_parents(training) -> None:
    """In training at the images' own size, and in evaluation always, without any Runner."""
    data = preprocessor([320] if training else SIZES)(batch(), training=training)
    expected = ClsDataPreprocessor(**NORMALIZATION)(batch(), training=training)
    assert torch.equal(data['inputs'], expected['inputs'])
    assert [int(s.gt_label) for s in data['data_samples']] == [0, 1]


def test_evaluation_needs_no_runner(runner_at) -> None:
    runner_at(None)
    assert preprocessor()(batch())['inputs'].shape == (2, 3, 320, 320)
    with pytest.raises(ValueError, match='iter'):
        preprocessor()(batch(), training=True)


def test_wrong_arguments() -> None:
    for sizes in ([], [0], [224, (0, 224)]):
        with pytest.raises(ValueError):
            preprocessor(sizes)
    with pytest.raises(TypeError, match='to_rbg'):
        preprocessor(to_rbg=True)
