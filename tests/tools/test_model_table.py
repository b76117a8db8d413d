"""The generated table of classification models: what shares a line, and that it is up to date."""

from pathlib import Path

import pytest
from helpers import ROOT
from tool_calls import call, load_tool

TOOL = 'analysis/model_table.py'


def test_table(tmp_path: Path) -> None:
    """Configs of a small ParC-ConvNeXt by several names."""
    base = ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py'
    crop = "test_dataloader = dict(dataset=dict(pipeline=[dict(type='CenterCrop', crop_size=64)]))"
    names = ('parc-small_a_in1k', 'parc-small_b_in1k', 'plain-tiny_in1k')
    paths = [tmp_path / f'{name}.py' for name in names]
    for path in paths:
        path.write_text(f'_base_ = {str(base)!r}\n{crop}\n')
    _, _, *lines = load_tool(TOOL).table_of(tmp_path, paths).splitlines()
    first, second = (line.strip('| ').split(' | ') for line in lines)
    link = '[{0}]({0}.py)'.format
    assert first[:3] == ['parc-small', f'{link(names[0])}, {link(names[1])}', '64 x 64']
    assert second[:3] == ['plain-tiny', link(names[2]), '64 x 64']
    assert 5e5 < int(first[3].replace(',', '')) < 2e6
    assert all(0.001 < float(n) < 0.1 for n in first[4].removesuffix(' G').split(' / '))


@pytest.mark.full
def test_ours_is_up_to_date() -> None:
    assert 'up to date' in call(TOOL, '--check', cwd=ROOT)
