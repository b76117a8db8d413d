"""The generated table of classification models: what it pairs, and that a stale one is noticed."""

import re
from pathlib import Path

import pytest
from helpers import ROOT, run_tool

TOOL = 'tools/analysis/model_table.py'
BEGIN, END = '<!-- begin: written by tools/analysis/model_table.py -->', '<!-- end -->'
PUBLISHED = """
rows:
  - {name: Parc-ConvNeXt-XT, published: {params: 7.41, madds: 0.6, top1: 78.3}}
  - {name: MobileViT-S, published: {params: 5.6, madds: 2.01}}
  - {name: ResNet50, published: {params: 26}}
"""
NAMES = (
    'parc-convnext-xt_32xb128_in1k',
    'mobilevits_8xb1_in1k-256px',
    'extra-xs_in1k',
    'mobile-vit-xs_in1k',
    'parc-convnext-base_in1k',
    'parc-deit-tiny_in1k',
    'extra_tiny',
)


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """Configs of a small ParC-ConvNeXt by several names, in a family's folder."""
    base = ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py'
    crop = "test_dataloader = dict(dataset=dict(pipeline=[dict(type='CenterCrop', crop_size=64)]))"
    folder = tmp_path / 'cls'
    (folder / 'family').mkdir(parents=True)
    for name in NAMES:
        (folder / 'family' / f'{name}.py').write_text(f'_base_ = {str(base)!r}\n{crop}\n')
    (folder / 'README.md').write_text(f'# before\n\n{BEGIN}\nold\n{END}\n\nafter\n')
    (tmp_path / 'published.yaml').write_text(PUBLISHED)
    return folder


def run(configs: Path, *args: str, status: int = 0) -> str:
    published = configs.parent / 'published.yaml'
    result = run_tool(
        TOOL, '--configs', configs, '--published', published, *args, cwd=configs.parent
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result.stderr if status else result.stdout


def assert_stale(configs: Path) -> None:
    before = (configs / 'README.md').read_text()
    said = run(configs, '--check', status=1)
    assert said == "error: 'cls/README.md' is stale: run tools/analysis/model_table.py\n"
    assert (configs / 'README.md').read_text() == before


def test_table(configs: Path) -> None:
    assert run(configs) == 'cls/README.md: written\n'
    assert run(configs, '--check') == 'cls/README.md: up to date\n'
    text = (configs / 'README.md').read_text()
    assert text.startswith(f'# before\n\n{BEGIN}\n| model ') and text.endswith('\n\nafter\n')
    rows = [line.strip('| ').split(' | ') for line in text.splitlines() if ' | ' in line][1:]

    # as published, one without a config; then what is not: another family, other sizes
    assert [row[0] for row in rows[:3]] == ['Parc-ConvNeXt-XT', 'MobileViT-S', 'ResNet50']
    others = ['extra-xs', 'MobileViT-XS', 'Parc-ConvNeXt-B', 'ParC-DeiT-T']
    assert [row[0] for row in rows[3:]] == others
    assert [row[4] for row in rows] == ['7.41 M', '5.6 M', '26 M', *'----']
    assert [row[6] for row in rows] == ['0.6 G', '2.01 G', *'-----']
    assert rows.pop(2)[1:6] == ['no config', '-', '-', '26 M', '-']
    for row, name in zip(rows, NAMES):
        assert row[1] == f'[{name}](family/{name}.py)'
        assert (configs / 'family' / f'{name}.py').is_file()
        assert row[2] == '64 x 64'
        assert 5e5 < int(row[3].replace(',', '')) < 2e6
        direct, matmul, fft = (float(n) for n in row[5].removesuffix(' G').split(' / '))
        assert direct == matmul and 0.001 < fft < 0.1


def test_recipes_of_one_network_share_a_line(configs: Path) -> None:
    for name in NAMES[1:]:
        (configs / 'family' / f'{name}.py').unlink()
    config = configs / 'family' / f'{NAMES[0]}.py'
    same = 'model = dict(backbone=dict(drop_path_rate=0.1), train_cfg=dict(_delete_=True))\n'
    other = 'model = dict(head=dict(num_classes=9))\n'
    for name, change in (('parc-convnext-xt_a_in1k', same), ('parc-convnext-xt_b_in1k', other)):
        config.with_stem(name).write_text(f'{config.read_text()}{change}')
    run(configs)
    lines = [line for line in (configs / 'README.md').read_text().splitlines() if 'family' in line]
    found = [re.findall(r'\(family/parc-convnext-xt_(\w+)_in1k.py\)', line) for line in lines]
    assert found == [['32xb128', 'a'], ['b']]
    counts = [int(line.split(' | ')[3].replace(',', '')) for line in lines]
    assert counts[0] < counts[1]  # of one more class


def test_a_changed_number_is_noticed(configs: Path) -> None:
    """Ours, the paper's, or the model's own."""
    for name in NAMES[1:]:
        (configs / 'family' / f'{name}.py').unlink()
    assert_stale(configs)
    run(configs)
    readme, published = configs / 'README.md', configs.parent / 'published.yaml'
    text = readme.read_text()
    (count,) = re.findall(r'\d+,\d+', text)
    readme.write_text(text.replace(count, count[:-1] + str((int(count[-1]) + 1) % 10)))
    assert_stale(configs)
    readme.write_text(text)
    published.write_text(PUBLISHED.replace('7.41', '7.42'))
    assert_stale(configs)
    published.write_text(PUBLISHED)
    assert run(configs, '--check')
    with (configs / 'family' / f'{NAMES[0]}.py').open('a') as file:
        file.write('model = dict(head=dict(num_classes=9))\n')
    assert_stale(configs)


@pytest.mark.parametrize('text', [None, '# no marks\n', f'{BEGIN}\n', f'{END}\n{BEGIN}\n'])
def test_readme_without_a_place(configs: Path, text: str | None) -> None:
    readme = configs / 'README.md'
    if text is None:
        readme.unlink()
    else:
        readme.write_text(text)
    said = run(configs, status=1)
    assert said.startswith("error: 'cls/README.md' has no place for the table: add")
    assert said.count('\n') == 1
    assert (readme.read_text() if readme.exists() else None) == text


@pytest.mark.slow
def test_ours_is_up_to_date(tmp_path: Path) -> None:
    result = run_tool(TOOL, '--check', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
