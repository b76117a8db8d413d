"""model-index.yml and each family's metafile.yml: complete, true, and read by upstream's loaders.

test_configs.py compares the numbers of parameters; here it is multiply-adds.
"""

import re
from pathlib import Path

import modelindex
import pytest
from helpers import ROOT
from leaves import LEAVES, long_recipe, parsed
from mmengine.fileio import load

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


def test_each_config_is_listed_once() -> None:
    leaves = sorted(f'configs/{leaf}' for leaf in LEAVES if not leaf.endswith('_toy.py'))
    families = {config.rpartition('/')[0] for config in leaves}
    assert sorted(METAFILES) == sorted(f'{family}/metafile.yml' for family in families)
    listed = [entry['Config'] for entry in ENTRIES]
    assert sorted(listed) == leaves
    for path, metafile in PARSED.items():
        folder = Path(path).parent
        assert all(Path(entry['Config']).parent == folder for entry in metafile['Models'])
    assert [entry['Name'] for entry in ENTRIES] == [Path(config).stem for config in listed]


def test_collections() -> None:
    assert len(COLLECTIONS) == sum(len(m.get('Collections', [])) for m in PARSED.values())
    assert {entry['In Collection'] for entry in ENTRIES} == {*COLLECTIONS}
    for name, collection in COLLECTIONS.items():
        assert re.fullmatch(r'https://arxiv.org/abs/\d{4}\.\d{5}', collection['Paper']['URL'])
        assert collection['Paper']['Title'] and (ROOT / collection['README']).is_file()
        assert ('ParC' in name) == ('ParC' in collection['Paper']['Title'])
    for entry in ENTRIES:
        backbone = parsed(entry['Config'].removeprefix('configs/')).model.backbone.type
        collection = entry['In Collection'].replace('DeiT', 'VisionTransformer').replace('-', '')
        assert backbone.rpartition('.')[2].startswith(collection)
    # nothing has been trained on the real data
    for entry in [*ENTRIES, *COLLECTIONS.values()]:
        assert not {'Results', 'Weights'} & {*entry}


def test_short_recipes_have_the_numbers_of_the_long_ones() -> None:
    """They have the same models, as test_configs.py asserts."""
    metadata = {entry['Name']: (entry['In Collection'], entry['Metadata']) for entry in ENTRIES}
    short = [name for name in metadata if long_recipe(name)]
    assert len(short) == 12
    assert all(metadata[name] == metadata[long_recipe(name)] for name in short)


def test_multiply_adds_are_the_models(only: str = 'convnext-xt_32xb128') -> None:
    told = {}
    for entry in ENTRIES:
        counted = 'FLOPs' in entry['Metadata'] and not long_recipe(entry['Name'])
        if counted and only in entry['Name']:
            cfg = engine.load_config(str(ROOT / entry['Config']))
            (count,) = count_config(cfg, backends=['direct']).counts.values()
            told[entry['Name']] = count.total
            assert entry['Metadata']['FLOPs'] == count.total, entry['Name']
    assert len(set(told.values())) > 1  # the control: those of other models differ


@pytest.mark.full
def test_multiply_adds_of_all_models() -> None:
    test_multiply_adds_are_the_models(only='')


def test_modelindex_reads_it() -> None:
    """Its one complaint is upstream's too: READMEs are named from the root, not the file."""
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    errors = [error for error in index.check(silent=True) if 'Path to README' not in error]
    assert errors == []
    assert len(index.models) == len(ENTRIES) and len(index.collections) == len(COLLECTIONS)
    for model in index.models:
        assert model.full_model.paper['URL'] == COLLECTIONS[model.in_collection]['Paper']['URL']
