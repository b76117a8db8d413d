#!/usr/bin/env python
"""Write the table of ImageNet classifiers, their parameters and multiply-adds, into configs/cls.

Configs whose names begin alike (resnet50_32xb128_in1k, resnet50_8xb128-100e_in1k) train one network
by different recipes and share a line.
"""

import argparse
from pathlib import Path

from mmparc import tool

TOOL = 'tools/analysis/model_table.py'


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing; fail if it is stale')
    return parser


def main(args: argparse.Namespace) -> None:
    tool.quiet()
    from mmparc.analysis.report import replace_block
    from mmparc.home import home

    readme = home() / 'configs/cls/README.md'
    table = table_of(readme.parent, sorted(readme.parent.glob('**/*_in1k*.py')))
    text, fresh = replace_block(readme, TOOL, table)
    if fresh != text and args.check:
        raise tool.UserError(f"'{readme}' is not up to date: run {TOOL}")
    readme.write_text(fresh)
    print(f'{readme}: {"up to date" if fresh == text else "written"}')


def table_of(folder: Path, configs: list[Path]) -> str:
    """A line for each network; links start from ``folder``."""
    from mmparc import engine
    from mmparc.analysis.flops import count_config
    from mmparc.analysis.report import markdown

    networks: dict[str, list[Path]] = {}
    for path in configs:
        networks.setdefault(path.stem.partition('_')[0], []).append(path)
    rows = []
    for name, paths in networks.items():
        counted = count_config(engine.load_config(str(paths[0])))
        links = [f'[{path.stem}]({path.relative_to(folder).as_posix()})' for path in paths]
        totals = ' / '.join(f'{count.total / 1e9:.4f}' for count in counted.counts.values())
        size = '{} x {}'.format(*counted.size)
        rows.append([name, ', '.join(links), size, f'{counted.params:,}', f'{totals} G'])
    return markdown(['model', 'config', 'image', 'parameters', 'multiply-adds'], rows, 3)


if __name__ == '__main__':
    tool.run(make_parser(), main)
