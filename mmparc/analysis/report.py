"""How tools show their progress and write what they measured; no package is needed."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar('T')


def track(items: Sequence[T], label: Callable[[T], str]) -> Iterator[T]:
    """The items, with a progress bar on stderr, or a line for each where rich is not installed."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        for number, item in enumerate(items, 1):
            print(f'[{number}/{len(items)}] {label(item)}', file=sys.stderr, flush=True)
            yield item
        return
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task('', total=len(items))
        for item in items:
            progress.update(task, description=label(item))
            yield item
            progress.advance(task)


def make_folder(folder: Path, names: Iterable[str], force: bool) -> None:
    """Make the folder that files of these names go to.

    Raises:
        FileExistsError: if one of them exists and ``force`` is not given, or it is no folder.
    """
    existing = [str(folder / name) for name in names if (folder / name).exists()]
    if existing and not force:
        raise FileExistsError(
            f'{existing[0]!r} exists: pass --force to overwrite it, or another --out'
        )
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f'{str(folder)!r} is no folder: pass another --out')
    folder.mkdir(parents=True, exist_ok=True)


def write_csv(path: Path, comments: Iterable[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of the same keys, below the comments, one line each that begins with '# '."""
    with path.open('w', newline='') as file:
        file.writelines(f'# {comment}\n' for comment in comments)
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]], texts: int) -> str:
    """A table as GitHub shows it; all columns but the first ``texts`` are numbers."""
    ruler = ['---'] * texts + ['---:'] * (len(header) - texts)
    return '\n'.join(f'| {" | ".join(map(str, cells))} |' for cells in [header, ruler, *rows])


def replace_block(path: Path, tool: str, block: str) -> tuple[str, str]:
    """The text of a page before and after its generated block is made anew; nothing is written.

    Args:
        path: the page. The block stands between '<!-- begin: written by TOOL -->' and
            '<!-- end -->'.
        tool: as the page names it.
        block: what is to stand there.

    Raises:
        ValueError: if the page has no place for it.
    """
    begin, end = f'<!-- begin: written by {tool} -->', '<!-- end -->'
    text = path.read_text() if path.is_file() else ''
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"'{path}' has no place for the table: add '{begin}' and '{end}'")
    return text, f'{before}{begin}\n{block}\n{end}{after}'
