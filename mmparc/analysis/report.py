"""How tools show their progress and write what they measured. Needs no package."""

import csv
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from mmparc.errors import UserError

T = TypeVar('T')


def track(items: Sequence[T]) -> Iterable[T]:
    """The items, with a progress bar on a terminal if rich is installed."""
    if not sys.stderr.isatty() or find_spec('rich') is None:
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, console=Console(stderr=True))


def command() -> str:
    """The command line, as a comment for the files that it writes."""
    return f'command: {shlex.join([f"tools/analysis/{Path(sys.argv[0]).name}", *sys.argv[1:]])}'


def make_folder(folder: Path, names: Iterable[str], force: bool) -> list[Path]:
    """Make the folder for files of these names, and return their paths.

    Raises:
        UserError: if one of them exists and ``force`` is not given, or ``folder`` is a file.
    """
    paths = [folder / name for name in names]
    for path in paths:
        if path.exists() and not force:
            raise UserError(f"'{path}' exists: pass --force to overwrite it, or another --out")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}' is a file: pass another --out")
    folder.mkdir(parents=True, exist_ok=True)
    return paths


def write_csv(path: Path, comments: Iterable[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of the same keys, below the comments, one line each that begins with '# '."""
    with path.open('w', newline='') as file:
        file.writelines(f'# {comment}\n' for comment in comments)
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def write_page(path: Path, title: str, comments: Iterable[str], body: str) -> None:
    """Write a Markdown page with the comments as a list above the body."""
    head = '\n'.join(f'- {comment}' for comment in comments)
    path.write_text(f'# {title}\n\n{head}\n\n{body}')


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]], texts: int) -> str:
    """A Markdown table; all columns but the first ``texts`` are numbers, aligned right."""
    ruler = ['---'] * texts + ['---:'] * (len(header) - texts)
    return '\n'.join(f'| {" | ".join(map(str, cells))} |' for cells in [header, ruler, *rows])


def replace_block(path: Path, tool: str, block: str) -> tuple[str, str]:
    """The text of a page before and after its generated block is replaced; nothing is written.

    Args:
        path: the page. The block stands between '<!-- begin: written by TOOL -->' and
            '<!-- end -->'.
        tool: as the page names it.
        block: the new content.

    Raises:
        UserError: if the page has no such block.
    """
    begin, end = f'<!-- begin: written by {tool} -->', '<!-- end -->'
    text = path.read_text() if path.is_file() else ''
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise UserError(f"'{path}' has no place for the table: add '{begin}' and '{end}'")
    return text, f'{before}{begin}\n{block}\n{end}{after}'
