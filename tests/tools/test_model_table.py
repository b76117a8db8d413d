"""The generated table of classification models: what it pairs, and that it is up to date."""

from argparse import Namespace
from pathlib import Path

import pytest
from helpers import ROOT
from tool_calls import inside

from mmparc.analysis import model_table
from mmparc.errors import UserError

NAMES = ('parc-small_a_in1k', 'parc-small_b_in1k', 'plain-tiny_in1k')
PUBLISHED = [dict(name='ParC-S', config='cls/parc-small_b_in1k.py', published=dict(params=7.41))]


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """Configs of a small ParC-ConvNeXt by several names."""
    base = ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py'
    crop = "test_dataloader = dict(dataset=dict(pipeline=[dict(type='CenterCrop', crop_size=64)]))"
    folder = tmp_path / 'configs'
    (folder / 'cls').mkdir(parents=True)
    for name in NAMES:
        (folder / f'cls/{name}.py').write_text(f'_base_ = {str(base)!r}\n{crop}\n')
    return folder


def test_table(configs: Path) -> None:
    paths = sorted(configs.glob('cls/*.py'))
    _, _, *lines = model_table.make_table(paths, PUBLISHED, configs).splitlines()
    first, second = (line.strip('| ').split(' | ') for line in lines)
    link = '[{0}]({0}.py)'.format
    assert first[:3] == ['ParC-S', f'{link(NAMES[0])}, {link(NAMES[1])}', '64 x 64']
    assert second[:3] == ['plain-tiny', link(NAMES[2]), '64 x 64']
    assert (first[4], first[6], second[4]) == ('7.41 M', '-', '-')
    assert 5e5 < int(first[3].replace(',', '')) < 2e6
    assert all(0.001 < float(n) < 0.1 for n in first[5].removesuffix(' G').split(' / '))


@pytest.mark.full
def test_ours_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    with inside(ROOT):
        model_table.run(Namespace(check=True))
        # the control
        made = model_table.make_table
        monkeypatch.setattr(model_table, 'make_table', lambda *a: made(*a).replace('ResNet50', 'x'))
        with pytest.raises(UserError):
            model_table.run(Namespace(check=True))
