"""Multi-scale batches: which sizes, when, the same on every rank, and what the pixels become."""

from collections import Counter

import pytest
import torch
from helpers import assert_close, relative_error
from mmengine.logging import MessageHub
from mmpretrain.models import ClsDataPreprocessor

from mmparc.models import MultiScaleClsDataPreprocessor

SIZES = [5, 6, 8, 9, 10]


@pytest.fixture(autouse=True)
def runner_at():
    """Sets the iteration that a Runner would have counted; None for no Runner."""
    info = MessageHub.get_current_instance().runtime_info
    before = info.get('iter')
    yield lambda iteration: info.update(iter=iteration)
    info['iter'] = before


def resized(model, images, training=True):
    return model(dict(inputs=images, data_samples=None), training)['inputs']


def test_sizes(runner_at) -> None:
    """Each as often, by the iteration alone: another rank, or a resumed run, draws the same."""

    def drawn(seed, iterations):
        model, sizes = MultiScaleClsDataPreprocessor(SIZES, seed=seed), []
        for iteration in iterations:
            runner_at(iteration)
            sizes.append(tuple(resized(model, torch.ones(1, 3, 8, 8)).shape[2:]))
        return sizes

    whole = drawn(0, range(500))
    count = Counter(whole)
    assert count.keys() == {(size, size) for size in SIZES}
    # 100 each, the standard deviation being 9
    assert 65 < min(count.values()) <= max(count.values()) < 135, count
    torch.manual_seed(5)
    assert drawn(0, range(20, 40)) == whole[20:40]
    assert drawn(1, range(40)) != whole[:40]  # negative controls
    assert whole[:20] != whole[20:40]


@pytest.mark.parametrize('size', [(224, 224), (200, 336), (131, 97)], ids=str)
def test_what_the_pixels_become(size, runner_at) -> None:
    """Ramps along H and W stay ramps, and height and width are not exchanged."""
    runner_at(0)
    rows, columns = torch.arange(320.0)[:, None], torch.arange(240.0)
    image = torch.stack([t.expand(320, 240) for t in (rows, columns, torch.tensor(7.0))])
    result = resized(MultiScaleClsDataPreprocessor([size]), image[None])[0]
    assert result.shape == (3, *size)
    # Pixel i of n lies where (i + 0.5) * length / n - 0.5 was; at the borders ramps are flatter.
    rows = ((torch.arange(size[0]) + 0.5) * 320 / size[0] - 0.5)[:, None].expand(size)
    columns = ((torch.arange(size[1]) + 0.5) * 240 / size[1] - 0.5).expand(size)
    expected = torch.stack([rows, columns, torch.full(size, 7.0)])
    inner = (slice(8, -8), slice(8, -8))
    for channel, wanted in zip(result, expected, strict=True):
        assert_close(channel[inner], wanted[inner], 1e-3)
    assert relative_error(result[0][inner], expected[1][inner]) > 0.1


def test_shrinking_does_not_alias(runner_at) -> None:
    """Stripes finer than the new pixels become their mean, not other stripes."""
    runner_at(0)
    stripes = (torch.arange(320) % 2 * 2.0).expand(1, 3, 320, 320)
    shrunk = resized(MultiScaleClsDataPreprocessor([120]), stripes)
    assert (shrunk[..., 4:-4] - 1).abs().max() < 0.2
    plain = torch.nn.functional.interpolate(stripes, 120, mode='bilinear')  # the control
    assert (plain[..., 4:-4] - 1).abs().max() > 0.6


def test_all_else_is_the_parents(runner_at) -> None:
    """In evaluation, which needs no Runner; training needs one."""
    options = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])
    model, images = MultiScaleClsDataPreprocessor(SIZES, **options), torch.rand(2, 3, 40, 30)
    runner_at(None)
    expected = resized(ClsDataPreprocessor(**options), images, training=False)
    assert torch.equal(resized(model, images, training=False), expected)
    with pytest.raises(ValueError, match='iter'):
        resized(model, images)
    runner_at(0)
    same = MultiScaleClsDataPreprocessor([(40, 30)], **options)
    assert torch.equal(resized(same, images), expected)


def test_wrong_arguments() -> None:
    for sizes in ([], [0], [224, (0, 224)]):
        with pytest.raises(ValueError):
            MultiScaleClsDataPreprocessor(sizes)
    with pytest.raises(TypeError, match='to_rbg'):
        MultiScaleClsDataPreprocessor(SIZES, to_rbg=True)
