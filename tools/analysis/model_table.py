#!/usr/bin/env python
"""Write the table of classification models, ours beside the published ones, into a README.

A config belongs to the published model that the first part of its name spells, hyphens and case
aside: parc-convnext-xt_32xb128_in1k.py is ParC-ConvNeXt-XT. Other sizes of a published family are
named as that is: convnext-tiny_32xb128_in1k.py is ConvNeXt-T; so are families without published
numbers that are known here: parc-deit-tiny_4xb256_in1k.py is ParC-DeiT-T. Configs that train one
network by different recipes share a line.
"""

import argparse
import os
import re
import warnings
from pathlib import Path

try:
    from mmengine.fileio import load
    from mmengine.logging import MMLogger
    from yaml import YAMLError

    from mmparc import engine
    from mmparc.analysis.flops import Report, count_config
    from mmparc.analysis.report import replace_block
    from mmparc.engine.errors import first_line
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None

ROOT = Path(__file__).parents[2]
TOOL = 'tools/analysis/model_table.py'
SIZES = dict(tiny='T', small='S', base='B')
FAMILIES = dict(parc='ParC', deit='DeiT', swin='Swin', mobilevit='MobileViT')
HEADER = (
    '| model | config | image | parameters | paper | multiply-adds | paper |',
    '|---|---|---|---|---|---|---|',
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing; fail if it is stale')
    parser.add_argument(
        '--configs', type=Path, default=ROOT / 'configs/cls', help='where the *_in1k*.py lie'
    )
    parser.add_argument(
        '--published', type=Path, default=ROOT / 'configs/tables/classification.yaml'
    )
    parser.add_argument('--readme', type=Path, help='default: README.md beside the configs')
    return parser.parse_args()


def spelling(name: str) -> str:
    return re.sub('[^a-z0-9]', '', name.lower())


def model_name(path: Path, published: list[dict]) -> str:
    """As published, else after a published size of the family, else by its family's spelling."""
    name = path.stem.partition('_')[0]
    family, _, size = name.rpartition('-')
    for model in (paper['name'] for paper in published):
        if spelling(model) == spelling(name):
            return model
        known, _, known_size = model.rpartition('-')
        if known and len(known_size) <= 2 and spelling(known) == spelling(family):
            return f'{known}-{SIZES.get(size, size.upper())}'
    parts = family.split('-')
    if set(parts) <= set(FAMILIES):
        return '-'.join([*map(FAMILIES.get, parts), SIZES.get(size, size.upper())])
    return name


def make_table(configs: list[Path], published: list[dict], folder: Path) -> str:
    """The published models in their order, then the others; links start from ``folder``."""
    by_model: dict[str, list[Path]] = {}
    for path in configs:
        by_model.setdefault(model_name(path, published), []).append(path)
    lines = [*HEADER]
    for paper in published:
        found = by_network(by_model.pop(paper['name'], []))
        lines += [row(paper['name'], paths, paper.get('published', {}), folder) for paths in found]
    for model, found in by_model.items():
        lines += [row(model, paths, {}, folder) for paths in by_network(found)]
    return '\n'.join(lines)


def by_network(paths: list[Path]) -> list[list[Path]]:
    """Configs put together where they have one network, and test it on images of one size."""
    if len(paths) < 2:
        return [paths]
    found: dict[str, list[Path]] = {}
    for path in paths:
        cfg = engine.load_config(str(path))
        network = {**cfg.model.to_dict(), 'train_cfg': None}
        network['backbone'].pop('drop_path_rate', None)  # which takes part in training alone
        pipeline = [{**step, '_scope_': None} for step in cfg.test_dataloader.dataset.pipeline]
        found.setdefault(repr((sorted(network.items()), pipeline)), []).append(path)
    return [*found.values()]


def row(model: str, paths: list[Path], paper: dict, folder: Path) -> str:
    params, madds = paper.get('params'), paper.get('madds')
    published = [f'{params} M' if params else '-', f'{madds} G' if madds else '-']
    if not paths:
        cells = [model, 'no config', '-', '-', published[0], '-', published[1]]
    else:
        report = count_config(engine.load_config(str(paths[0])))
        links = [f'[{p.stem}]({Path(os.path.relpath(p, folder)).as_posix()})' for p in paths]
        image = '{} x {}'.format(*report.size)
        cells = [
            model,
            ', '.join(links),
            image,
            f'{report.params:,}',
            published[0],
            madds_of(report),
        ]
        cells.append(published[1])
    return f'| {" | ".join(cells)} |'


def madds_of(report: Report) -> str:
    """One number, or with ParC one a backend; and what was not counted."""
    totals = [f'{count.total / 1e9:.4f}' for count in report.counts.values()]
    unknown = {op for count in report.counts.values() for op in count.unknown}
    text = ' / '.join(totals) + ' G'
    return f'{text} without {", ".join(sorted(unknown))}' if unknown else text


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    readme = Path(os.path.relpath(args.readme or args.configs / 'README.md'))
    try:
        replace_block(readme, TOOL, '')  # before the models are counted
    except ValueError as error:
        raise engine.UserError(str(error)) from None
    warnings.simplefilter('ignore')  # upstream's constructors and the trace
    MMLogger.get_current_instance().setLevel('ERROR')
    configs = sorted(args.configs.glob('**/*_in1k*.py'))
    try:
        published = load(args.published)['rows']
    except (YAMLError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise engine.UserError(
            f"'{args.published}' holds no published numbers ({first_line(error)}): take a file "
            'such as configs/tables/classification.yaml'
        ) from None
    table = make_table(configs, published, readme.parent)
    text, fresh = replace_block(readme, TOOL, table)
    if args.check:
        if fresh != text:
            raise engine.UserError(f"'{readme}' is stale: run {TOOL}")
    else:
        readme.write_text(fresh)
    print(f'{readme}: {"up to date" if fresh == text else "written"}')


if __name__ == '__main__':
    main()
