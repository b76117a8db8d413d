"""The page of results in a real browser, opened from disk: `make test-report`.

What is rendered is compared with the tables' files and the kept results, read here on their own.
The project's own page, and one with synthetic runs of the real tables, a small tier and figures.
"""

import base64
import json
import statistics
import struct
import zlib
from pathlib import Path

import pytest
import yaml
from chromium import Browser, Page
from helpers import ROOT
from runs import SMALL, write_run

from mmparc.tables import load_table, table_names
from mmparc.tables.page import to_html
from mmparc.tables.results import Results, dump_results, load_results, merge, read_run
from mmparc.tables.view import read_figures, view_of

OWN = ROOT / 'docs/results'
# The cells of each table of results, with what a reader sees in them.
CELLS = """
Object.fromEntries([...document.querySelectorAll('section.table')].map(section => [section.id,
    [...section.querySelectorAll('table.results')].map(table =>
        [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.innerText.trim())))]))
"""
IMAGES = '[...document.images].map(image => [image.complete, image.naturalWidth, image.alt])'
WIDTH = 'document.documentElement.scrollWidth'
# Contrast of each text with what lies behind it, by WCAG 2: [ratio, tag, text] of the worst.
CONTRAST = """
(() => {
    const channels = colour => colour.match(/[0-9.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
        v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
    ).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (; element; element = element.parentElement) {
            const colour = channels(getComputedStyle(element).backgroundColor);
            if (colour.length < 4 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    const found = [];
    for (const element of document.body.querySelectorAll('*')) {
        const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
        if (!own || element.tagName === 'STYLE') continue;
        const style = getComputedStyle(element);
        const svg = element.namespaceURI.endsWith('svg');
        const pair = [channels(svg ? style.fill : style.color), behind(element)].map(light);
        const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        found.push([ratio, element.tagName, element.textContent.trim().slice(0, 40)]);
    }
    return found.sort((a, b) => a[0] - b[0]).slice(0, 3);
})()
"""


def png(width: int, height: int) -> bytes:
    """A grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    lines = zlib.compress((b'\0' + b'\x80' * width) * height)
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        [chunk(b'IHDR', header), chunk(b'IDAT', lines), chunk(b'IEND', b'')]
    )


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory):
    with Browser(tmp_path_factory.mktemp('profile')) as browser:
        yield browser


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of synthetic runs, two figures, and the page of them."""
    folder = tmp_path_factory.mktemp('made')
    work_dirs = folder / 'work_dirs'
    views = []
    for table in [*(load_table(name) for name in table_names() if name != 'small'), SMALL]:
        results = load_results(table.name, OWN) if table is not SMALL else Results('small')
        for number, row in enumerate(table.rows):
            for run in row.runs(work_dirs):
                if table is not SMALL and number % 2:
                    continue
                value = (40 + number + 0.37 * (run.seed or 0)) / row.scale
                write_run(run.work_dir, row.schedule, dict.fromkeys(row.metrics.values(), value))
                merge(results, table, [read_run(row, run)])
        (folder / f'{table.name}.json').write_text(dump_results(results))
        views.append(view_of(table, results, folder / 'figures'))
    figures = folder / 'figures'
    figures.mkdir()
    (figures / 'a.png').write_bytes(png(800, 300))
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60"><circle r="30"/></svg>'
    )
    (figures / 'b.svg').write_text(drawing)
    items = [
        dict(file='a.png', kind='predictions', title='Grey', caption='All of it.'),
        dict(file='b.svg', kind='figures', title='Round', caption='A quarter.', command='draw it'),
    ]
    (figures / 'captions.yaml').write_text(yaml.safe_dump(items))
    (folder / 'index.html').write_text(to_html(views, read_figures(figures)))
    return folder


def expected_cells(name: str, folder: Path) -> dict[str, list[str]]:
    """{row: what is to be read in it} of a table whose rows share their metrics, from its files."""
    table = yaml.safe_load((ROOT / f'configs/tables/{name}.yaml').read_text())
    runs = json.loads((folder / f'{name}.json').read_text())['runs']
    scale = table.get('scale', 1)
    rows = {}
    for row in table['rows']:
        cells = []
        for column, key in table['metrics'].items():
            paper = row.get('published', {}).get(column)
            ours = [run['metrics'][key] * scale for run in runs if run['row'] == row['name']]
            cells.append(paper)
            cells.append(statistics.fmean(ours) if ours else None)
        rows[row['name']] = cells
    return rows


def as_number(text: str) -> float | None:
    if text in ('not run', '-'):
        return None
    return float(text.split(' ± ')[0].replace('−', '-').replace('±', ''))


def check_cells(page: Page, name: str, folder: Path) -> int:
    """Compare each cell of a published table with the files; how many numbers of ours there are."""
    ((*rows,),) = page.evaluate(CELLS)[name]
    expected = expected_cells(name, folder)
    assert [row[0] for row in rows] == list(expected)
    count = 0
    for model, *cells in rows:
        pairs = expected[model]
        assert len(cells) == 3 * len(pairs) // 2
        for i in range(len(pairs) // 2):
            paper, ours, difference = map(as_number, cells[3 * i : 3 * i + 3])
            wanted, measured = pairs[2 * i : 2 * i + 2]
            assert paper == wanted
            if measured is None:
                assert (ours, difference) == (None, None)
                assert cells[3 * i + 1] == 'not run'
            else:
                count += 1
                assert ours == pytest.approx(measured, abs=0.00501)
                if wanted is not None:
                    assert difference == pytest.approx(measured - wanted, abs=0.00501)
    return count


def check_sound(page: Page, path: Path, width: int) -> None:
    """The page is whole, asked for nothing but itself, and is no wider than the window."""
    outside = [url for url in page.requested if not url.startswith('data:')]
    assert outside == [path.resolve().as_uri()], outside
    assert page.complaints == []
    images = page.evaluate(IMAGES)
    assert all(complete and natural > 0 and alt for complete, natural, alt in images), images
    assert page.evaluate(WIDTH) <= width


PUBLISHED = [name for name in table_names() if load_table(name).source]


@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
def test_our_page(browser: Browser, width: int, dark: bool) -> None:
    page = Page(browser, OWN / 'index.html', width, dark=dark)
    check_sound(page, OWN / 'index.html', width)
    assert page.evaluate('document.title') and page.evaluate('document.scripts.length') == 0
    listed = page.evaluate("[...document.querySelectorAll('section.table')].map(s => s.id)")
    assert listed == table_names()
    for name in PUBLISHED:
        check_cells(page, name, OWN)
    ratio, tag, text = page.evaluate(CONTRAST)[0]
    assert ratio >= 4.5, f'{tag} {text!r} has a contrast of {ratio:.2f}'


@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
def test_a_page_of_runs(browser: Browser, made: Path, width: int, dark: bool, tmp_path) -> None:
    path = made / 'index.html'
    page = Page(browser, path, width, dark=dark)
    check_sound(page, path, width)
    assert sum(check_cells(page, name, made) for name in PUBLISHED) >= 10
    ratio, tag, text = page.evaluate(CONTRAST)[0]
    assert ratio >= 4.5, f'{tag} {text!r} has a contrast of {ratio:.2f}'

    # the small tier: a line a group, an arm a column
    small = page.evaluate(CELLS)['small'][0]
    runs = json.loads((made / 'small.json').read_text())['runs']
    for group, cells in ((row[0], row[1:]) for row in small):
        for name, cell in zip(('plain', 'ParC', 'ParC, no embedding'), cells):
            own = [r['metrics']['accuracy/top1'] for r in runs if r['row'] == f'{group}, {name}']
            assert len(own) == 3
            assert cell == f'{statistics.fmean(own):.2f} ± {statistics.stdev(own):.2f}'
    # figures, charts and their legends are seen
    assert [image[1:] for image in page.evaluate(IMAGES)] == [[800, 'Grey'], [90, 'Round']]
    boxes = page.evaluate(
        "[...document.querySelectorAll('.charts svg')].map(s => [s.getBoundingClientRect().width,"
        ' s.getBoundingClientRect().height, s.textContent])'
    )
    assert len(boxes) >= 10 and all(w > 300 and h > 100 for w, h, _ in boxes)
    assert any('mean and range of 3 runs' in text for _, _, text in boxes)
    page.screenshot(tmp_path / 'page.png')
    wide, high = struct.unpack('>II', (tmp_path / 'page.png').read_bytes()[16:24])
    assert wide == width and high == page.evaluate('document.documentElement.scrollHeight')


# Controls


BROKEN = base64.b64encode(b'no picture').decode()


@pytest.mark.parametrize(
    'added',
    [
        f'<img alt="x" src="data:image/png;base64,{BROKEN}">',
        '<img alt="x" src="http://localhost:9/x.png">',
        '<link rel="stylesheet" href="https://example.org/x.css">',
        '<script>console.error("x")</script>',
        '<script>fetch("https://example.org/x")</script>',
        '<div style="width: 3000px; height: 1px"></div>',
    ],
    ids=['a broken image', 'an image from outside', 'a style', 'an error', 'a request', 'too wide'],
)
def test_what_is_wrong_is_noticed(browser: Browser, tmp_path: Path, added: str) -> None:
    text = (OWN / 'index.html').read_text()
    path = tmp_path / 'index.html'
    path.write_text(text)
    check_sound(Page(browser, path), path, 1280)
    path.write_text(text.replace('</main>', f'{added}</main>'))
    with pytest.raises(AssertionError):
        check_sound(Page(browser, path), path, 1280)


def test_a_wrong_number_is_noticed(browser: Browser, made: Path, tmp_path: Path) -> None:
    text = (made / 'index.html').read_text()
    path = tmp_path / 'index.html'
    for shown, other in (('>47.2<', '>47.3<'), ('not run', '47.20'), ('>40.00<', '>40.10<')):
        assert shown in text
        path.write_text(text.replace(shown, other))
        with pytest.raises(AssertionError):
            for name in PUBLISHED:
                check_cells(Page(browser, path), name, made)


def test_faint_text_is_noticed(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / 'index.html'
    path.write_text((OWN / 'index.html').read_text().replace('--soft: #5b6570', '--soft: #c0c8d0'))
    assert Page(browser, path).evaluate(CONTRAST)[0][0] < 4.5
