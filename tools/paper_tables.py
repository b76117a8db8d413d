#!/usr/bin/env python
"""Write the tables of configs/tables, published beside measured, as markdown, CSV and HTML.

First the finished runs' logs are read into OUT/TABLE.json, which outlives the work directories:
what it holds of runs that are not on this disk stays. From these files all else is made: TABLE.md,
TABLE.csv, one index.html of all tables, and README.md's table.
"""

import argparse
import os
import warnings
from pathlib import Path

try:
    from mmengine.logging import MMLogger

    from mmparc import engine
    from mmparc.analysis import report
    from mmparc.analysis.flops import count_config
    from mmparc.tables import Row, Table, load_table, table_names
    from mmparc.tables.page import to_html
    from mmparc.tables.results import (
        Counted,
        Results,
        count_rows,
        dump_results,
        load_results,
        merge,
        read_run,
    )
    from mmparc.tables.texts import MARK, TOOL, to_csv, to_markdown, to_readme
    from mmparc.tables.view import read_figures, view_of
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'tables', nargs='*', metavar='TABLE', help='whose runs to look for; default: all'
    )
    parser.add_argument('--work-dirs', type=Path, default=Path('work_dirs'), help='of the runs')
    parser.add_argument('--out', type=Path, default=Path('docs/results'), help='a folder')
    parser.add_argument(
        '--readme', type=Path, help='the page to write the compact table into; default: none'
    )
    step = parser.add_mutually_exclusive_group()
    step.add_argument(
        '--collect-only', action='store_true', help='read the runs into OUT/TABLE.json alone'
    )
    step.add_argument(
        '--render-only', action='store_true', help='look at no run: make all from OUT/TABLE.json'
    )
    step.add_argument(
        '--check', action='store_true', help='as --render-only; write nothing, fail if one is stale'
    )
    return parser.parse_args()


def collect(table: Table, work_dirs: Path, out: Path) -> Results:
    """Bring what is kept of a table up to what its finished runs logged, and its models count."""
    results = load_results(table.name, out)
    runs = [(row, run) for row in table.rows for run in row.runs(work_dirs)]
    found = [result for row, run in runs if (result := read_run(row, run))]
    for told in merge(results, table, found):
        print(f'{table.name}: {told}')
    new = [row for row in table.rows if results.count(row) is None]
    counted = {row.name: count(row) for row in report.track(new, lambda row: f'count {row.name}')}
    count_rows(results, table, lambda row: counted[row.name])
    print(f'{table.name}: {len(found)} of {len(runs)} runs here, {len(results.runs)} kept')
    return results


def count(row: Row) -> Counted:
    cfg = engine.load_config(f'mmparc::{row.config}', row.options)
    engine.drop_pretrained(cfg)
    counted = count_config(cfg)
    madds = {backend: count.total for backend, count in counted.counts.items()}
    unknown = sorted({name for count in counted.counts.values() for name in count.unknown})
    return Counted(row.name, row.config, row.options, counted.size, counted.params, madds, unknown)


def rendered(out: Path, readme: Path | None) -> dict[Path, str]:
    """{file: what it is to hold} of all that is made from the kept results."""
    figures = out / 'figures'
    views = [
        view_of(table, load_results(table.name, out), figures)
        for table in map(load_table, table_names())
    ]
    files = {}
    for view in views:
        files[out / f'{view.name}.md'] = to_markdown(view)
        files[out / f'{view.name}.csv'] = to_csv(view)
    files[out / 'index.html'] = to_html(views, read_figures(figures))
    if readme:
        folder = Path(os.path.relpath(out, readme.parent)).as_posix()
        _, files[readme] = report.replace_block(readme, TOOL, to_readme(views, folder))
    return files


def check_place(files: dict[Path, str]) -> None:
    """Raise UserError if one of the files is there and not this tool's."""
    for path in files:
        if path.exists() and MARK not in path.read_text():
            raise engine.UserError(f"'{path}' was not {MARK}: move it away, or pass another --out")


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    warnings.simplefilter('ignore')  # upstream's constructors and the trace
    MMLogger.get_current_instance().setLevel('ERROR')
    try:
        run(args)
    except ValueError as error:  # of a table, a log or the kept results: one line
        raise engine.UserError(str(error)) from None


def run(args: argparse.Namespace) -> None:
    tables = [load_table(name) for name in args.tables or table_names()]
    if not (args.render_only or args.check):
        args.out.mkdir(parents=True, exist_ok=True)
        for table in tables:
            results = collect(table, args.work_dirs, args.out)
            (args.out / f'{table.name}.json').write_text(dump_results(results))
    if args.collect_only:
        return
    files = rendered(args.out, args.readme)
    if args.check:
        stale = [p for p, text in files.items() if not p.is_file() or p.read_text() != text]
        again = f'--render-only{f" --readme {args.readme}" if args.readme else ""}'
        if stale:
            raise engine.UserError(f"'{stale[0]}' is stale: run {TOOL} {again}")
        print(f'{args.out}: up to date')
        return
    check_place(files)
    for path, text in files.items():
        path.write_text(text)
    print(args.out / 'index.html')


if __name__ == '__main__':
    main()
