"""model-index.yml and each family's metafile.yml: complete, true, and read by upstream's loaders.

Parameters and multiply-adds are compared with those of the models, built and traced.
"""

import re
from pathlib import Path

import modelindex
import pytest
from helpers import ROOT, long_recipe
from mmengine.config import Config
from mmengine.config.utils import _get_cfg_metainfo
from mmengine.fileio import load
from mmengine.registry import MODELS, DefaultScope

from mmparc import engine
from mmparc.analysis.flops import count_config

METAFILES = load(ROOT / 'model-index.yml')['Import']
PARSED = {path: load(ROOT / path) for path in METAFILES}
ENTRIES = [entry for metafile in PARSED.values() for entry in metafile['Models']]
COLLECTIONS = {
    collection['Name']: collection
    for metafile in PARSED.values()
    for collection in metafile.get('Collections', [])
}


def leaves(root: Path = ROOT) -> list[str]:
    """The configs that a metafile has to list: those of the three tasks, but for the small data."""
    return [
        path.relative_to(root).as_posix()
        for path in root.glob('configs/[!_]*/**/*.py')
        if not path.stem.endswith('_toy')
    ]


def counted(cfg: Config) -> dict[str, int]:
    """What a metafile says of a config's model, by the model itself."""
    if cfg.default_scope == 'mmpretrain':
        report = count_config(cfg, backends=['direct'])
        (count,) = report.counts.values()
        return dict(Parameters=report.params, FLOPs=count.total)
    engine.drop_pretrained(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    return dict(Parameters=sum(p.numel() for p in model.parameters()))


def test_each_metafile_is_imported() -> None:
    found = [path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/**/metafile.yml')]
    families = {config.rpartition('/')[0] for config in leaves()}
    assert sorted(METAFILES) == sorted(found) == sorted(f'{f}/metafile.yml' for f in families)


def test_each_config_is_listed_once(tmp_path: Path) -> None:
    listed = [entry['Config'] for entry in ENTRIES]
    assert sorted(listed) == sorted(leaves())
    for path, metafile in PARSED.items():
        folder = Path(path).parent
        assert all(Path(entry['Config']).parent == folder for entry in metafile['Models'])
    assert [entry['Name'] for entry in ENTRIES] == [Path(config).stem for config in listed]
    # the control: another config is noticed, one for the small data is none
    for name in ('configs/det/x/new_coco.py', 'configs/det/x/x_toy.py', 'configs/_base_/x.py'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert leaves(tmp_path) == ['configs/det/x/new_coco.py']


def test_collections() -> None:
    assert len(COLLECTIONS) == sum(len(m.get('Collections', [])) for m in PARSED.values())
    assert {entry['In Collection'] for entry in ENTRIES} == {*COLLECTIONS}
    for name, collection in COLLECTIONS.items():
        assert re.fullmatch(r'https://arxiv.org/abs/\d{4}\.\d{5}', collection['Paper']['URL'])
        assert collection['Paper']['Title'] and (ROOT / collection['README']).is_file()
        assert ('ParC' in name) == ('ParC' in collection['Paper']['Title'])


def test_no_results_are_claimed() -> None:
    """As long as nothing has been trained on the real data."""
    for entry in [*ENTRIES, *COLLECTIONS.values()]:
        assert not {'Results', 'Weights'} & {*entry}


def test_short_recipes_have_the_numbers_of_the_long_ones() -> None:
    """Of the same models, which test_configs.py asserts."""
    metadata = {entry['Name']: (entry['In Collection'], entry['Metadata']) for entry in ENTRIES}
    short = [name for name in metadata if long_recipe(name)]
    assert len(short) == 12
    assert all(metadata[name] == metadata[long_recipe(name)] for name in short)


@pytest.mark.slow
@pytest.mark.parametrize(
    'entry',
    [entry for entry in ENTRIES if not long_recipe(entry['Name'])],
    ids=lambda entry: entry['Name'],
)
def test_collection_and_numbers_are_the_models(entry: dict) -> None:
    cfg = engine.load_config(str(ROOT / entry['Config']))
    backbone = cfg.model.backbone.type.rpartition('.')[2]
    collection = entry['In Collection'].replace('DeiT', 'VisionTransformer')
    assert backbone.startswith(collection.replace('-', ''))
    assert entry['Metadata'] == counted(cfg)


def test_numbers_of_another_model_are_noticed() -> None:
    xt, parc = (f'{name}convnext-xt_32xb128_in1k' for name in ('', 'parc-'))
    said = {entry['Name']: entry['Metadata'] for entry in ENTRIES}
    other = counted(engine.load_config(str(ROOT / f'configs/cls/convnext/{xt}.py')))
    assert other == said[xt]
    assert all(other[key] != said[parc][key] for key in ('Parameters', 'FLOPs'))


def test_modelindex_reads_it() -> None:
    """Its one complaint is that of upstream's: READMEs are named from the root, not the file."""
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    errors = [error for error in index.check(silent=True) if 'Path to README' not in error]
    assert errors == []
    assert len(index.models) == len(ENTRIES) and len(index.collections) == len(COLLECTIONS)
    for model in index.models:
        assert model.full_model.paper['URL'] == COLLECTIONS[model.in_collection]['Paper']['URL']


def test_mmengine_reads_it(tmp_path: Path) -> None:
    """As mmengine.hub does for a package whose .mim holds it; it knows no name but upstream's."""
    (tmp_path / '.mim').symlink_to(ROOT)
    for entry in ENTRIES:
        assert _get_cfg_metainfo(str(tmp_path), entry['Config'].partition('/')[2]) == entry
    with pytest.raises(ValueError, match='Expected configs'):
        _get_cfg_metainfo(str(tmp_path), 'cls/convnext/parc-convnext-micro_toy.py')
