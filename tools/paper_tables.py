#!/usr/bin/env python
"""Write the results of the tables of configs/tables, published beside ours.

The finished runs' logs are collected into OUT/TABLE.json, which outlives the work directories. All
else is made from these files: OUT/TABLE.md, OUT/TABLE.csv, OUT/figures/TABLE.png, and README.md's
table.
"""

import argparse
import os
from pathlib import Path

from mmparc import tool
from mmparc.errors import UserError


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('tables', nargs='*', metavar='TABLE', help='names or .yaml files (all)')
    parser.add_argument(
        '--work-dirs', type=Path, default=Path('work_dirs'), help='folder of all runs (work_dirs)'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('docs/results'), help='a folder (docs/results)'
    )
    parser.add_argument('--readme', type=Path, help='a page with a place for all tables in short')
    step = parser.add_mutually_exclusive_group()
    step.add_argument(
        '--render-only', action='store_true', help='collect nothing: write from OUT/TABLE.json'
    )
    step.add_argument(
        '--check', action='store_true', help='write nothing, and fail if a text is out of date'
    )
    return parser


def main(args: argparse.Namespace) -> None:
    from mmparc.results import collect, write
    from mmparc.results.plan import load_table, table_names

    tool.quiet()
    if args.tables and args.readme:
        raise UserError('--readme is for all tables: leave their names out')
    try:
        tables = [load_table(name) for name in args.tables or table_names()]
        if not (args.render_only or args.check):
            args.out.mkdir(parents=True, exist_ok=True)
            for table in tables:
                kept = collect.load_kept(table.name, args.out)
                for news in collect.collect(table, kept, args.work_dirs, count):
                    print(f'{table.name}: {news}')
                (args.out / f'{table.name}.json').write_text(collect.dump_kept(kept))
        texts = render(tables, args.out, args.readme)
    except ValueError as error:
        raise UserError(str(error)) from None
    for path, text in texts.items():
        found = path.read_text() if path.is_file() else None
        if args.check and found != text:
            raise UserError(f"'{path}' is out of date: run tools/paper_tables.py --render-only")
        if found is not None and write.MARK not in found:
            raise UserError(f"'{path}' was not {write.MARK}: move it away, or pass another --out")
    if args.check:
        return
    for path, text in texts.items():
        path.write_text(text)
    (args.out / 'figures').mkdir(exist_ok=True)
    for table in tables:
        kept = collect.load_kept(table.name, args.out)
        if kept['runs']:
            write.draw_curves(table, kept, args.out / 'figures' / f'{table.name}.png')
    print(args.out)


def count(row) -> dict | None:
    """The size of the image, parameters and multiply-adds of a row's model."""
    from mmparc import engine
    from mmparc.analysis.flops import count_config

    cfg = engine.load_config(f'mmparc::{row.config}', row.options)
    engine.drop_pretrained(cfg)
    try:
        counted = count_config(cfg)
    except UserError as error:
        print(f'{row.table}: {row.name} is not counted: {error}')
        return None
    return dict(
        row=row.name,
        config=row.config,
        options=row.options,
        size=list(counted.size),
        params=counted.params,
        madds={backend: count.total for backend, count in counted.counts.items()},
        unknown=sorted({name for count in counted.counts.values() for name in count.unknown}),
    )


def render(tables: list, out: Path, readme: Path | None) -> dict[Path, str]:
    """{file: its text} of these tables."""
    from mmparc.analysis import report
    from mmparc.results import collect, write

    texts, claims, published = {}, [], []
    folder = os.path.relpath(out, readme.parent if readme else out)
    for table in tables:
        kept = collect.load_kept(table.name, out)
        values = write.values_of(table, kept, out / 'figures' / 'erf.csv')
        rows, pairs = write.summary_of(table, kept, values), write.pairs_of(values)
        picture = f'figures/{table.name}.png' if kept['runs'] else ''
        texts[out / f'{table.name}.csv'] = write.to_csv(table, rows)
        texts[out / f'{table.name}.md'] = write.to_markdown(table, rows, pairs, picture)
        link = f'[{table.title}]({folder}/{table.name}.md)'
        if table.source:
            metric = next(iter(table.rows[0].metrics))
            published += [f'{link}:', write.to_table(write.results_of(rows, [metric]))]
        elif len(pairs) and (shown := write.claims_to_markdown(pairs)):
            claims += [f'{link}:', shown] if kept['runs'] else [f'{link}: *not run*']
    if readme:
        block = '\n\n'.join(
            [
                *claims,
                '<details>\n<summary>Published beside ours</summary>',
                *published,
                '</details>',
            ]
        )
        _, texts[readme] = report.replace_block(readme, 'tools/paper_tables.py', block)
    return texts


if __name__ == '__main__':
    tool.run(make_parser(), main)
