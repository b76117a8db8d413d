"""The table of classification models, ours beside the published ones, in configs/cls/README.md.

Configs whose names begin alike (resnet50_32xb128_in1k, resnet50_8xb128-100e_in1k) train one network
by different recipes and share a line. A network has the published name and numbers if one of its
configs is named in configs/tables/classification.yaml.
"""

import argparse
import os
from pathlib import Path

from mmengine.fileio import load

from mmparc import engine
from mmparc.analysis.flops import count_config
from mmparc.analysis.report import replace_block
from mmparc.home import home

TOOL = 'tools/analysis/model_table.py'
HEADER = (
    '| model | config | image | parameters | paper | multiply-adds | paper |',
    '|---|---|---|---|---|---|---|',
)


def run(args: argparse.Namespace) -> None:
    """Write the table, or with ``args.check`` refuse one that is not up to date."""
    configs = home() / 'configs'
    readme = Path(os.path.relpath(configs / 'cls/README.md'))
    published = load(configs / 'tables/classification.yaml')['rows']
    table = make_table(sorted(configs.glob('cls/**/*_in1k*.py')), published, configs)
    text, fresh = replace_block(readme, TOOL, table)
    if fresh != text and args.check:
        raise engine.UserError(f"'{readme}' is not up to date: run {TOOL}")
    readme.write_text(fresh)
    print(f'{readme}: {"up to date" if fresh == text else "written"}')


def make_table(configs: list[Path], published: list[dict], root: Path) -> str:
    """The published models in their order, then the others.

    Args:
        configs: of ImageNet classifiers.
        published: rows with a name, a config's path from ``root``, and published numbers.
        root: the folder configs; links start from its cls.
    """
    networks: dict[str, list[Path]] = {}
    for path in configs:
        networks.setdefault(path.stem.partition('_')[0], []).append(path)
    lines = [*HEADER]
    for paper in published:
        paths = networks.pop(Path(paper['config']).stem.partition('_')[0])
        lines.append(row(paper['name'], paths, paper.get('published', {}), root / 'cls'))
    lines += [row(name, paths, {}, root / 'cls') for name, paths in networks.items()]
    return '\n'.join(lines)


def row(name: str, paths: list[Path], paper: dict, folder: Path) -> str:
    report = count_config(engine.load_config(str(paths[0])))
    links = [f'[{p.stem}]({Path(os.path.relpath(p, folder)).as_posix()})' for p in paths]
    totals = ' / '.join(f'{count.total / 1e9:.4f}' for count in report.counts.values())
    params, madds = paper.get('params'), paper.get('madds')
    cells = [
        name,
        ', '.join(links),
        '{} x {}'.format(*report.size),
        f'{report.params:,}',
        f'{params} M' if params else '-',
        f'{totals} G',
        f'{madds} G' if madds else '-',
    ]
    return f'| {" | ".join(cells)} |'
