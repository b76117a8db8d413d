"""How tools show their progress and write what they measured. Needs no package."""

import csv
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from mmparc.errors import UserError

T = TypeVar('T')


def track(items: Sequence[T], label: Callable[[T], str]) -> Iterator[T]:
    """Yield the items, with a progress bar on a terminal if rich is installed."""
    if not sys.stderr.isatty() or find_spec('rich') is None:
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task('', total=len(items))
        for item in items:
            progress.update(task, description=label(item))
            yield item
            progress.advance(task)


def command() -> str:
    """The command line, as a comment for the files that it writes."""
    return f'command: {shlex.join([f"tools/analysis/{Path(sys.argv[0]).name}", *sys.argv[1:]])}'


def make_folder(folder: Path, names: Iterable[str], force: bool) -> None:
    """Make the folder for files of these names.

    Raises:
        UserError: if one of them exists and ``force`` is not given, or ``folder`` is a file.
    """
    existing = [str(folder / name) for name in names if (folder / name).exists()]
    if existing and not force:
        raise UserError(f'{existing[0]!r} exists: pass --force to overwrite it, or another --out')
    if folder.exists() and not folder.is_dir():
        raise UserError(f'{str(folder)!r} is a file: pass another --out')
    folder.mkdir(parents=True, exist_ok=True)


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
