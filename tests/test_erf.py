"""Effective receptive fields: against finite differences, known kernels and hand-made maps."""

import csv
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from backbones import in_eval, mixers, with_axes_exchanged
from helpers import ROOT, assert_close, relative_error, run_tool
from mmengine.config import Config
from torch import Tensor, nn

from mmparc.analysis.erf import Field, prepare_untrained, receptive_field
from mmparc.models import ParCMixer
from mmparc.registry import MODELS
from mmparc.swap.fragments import load_fragment, twin_names

TOOL = 'tools/analysis/erf.py'
TOY = ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py'
PLAIN_TOY = ROOT / 'configs/cls/convnext/convnext-micro_toy.py'
SIZES = [(9, 14), (14, 9), (11, 11)]
PERCENT = (20, 30, 50, 99)


def rectified(conv: nn.Module) -> nn.Module:
    """With a bias that keeps every output above 0, so that nothing is rectified away."""
    nn.init.constant_(conv.bias, 100.0)
    return conv


def toy_backbone(name: str = 'parc-convnext-micro', **settings) -> nn.Module:
    """With branches that count: as they begin, nearly all of the field is the skip path's."""
    fragment = load_fragment(name).for_maps
    backbone = in_eval_of({**fragment, 'gap_before_final_norm': False, **settings})
    for parameter in backbone.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return backbone


def in_eval_of(settings: dict) -> nn.Module:
    return in_eval(MODELS.build(settings))


# The contributions


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_finite_differences(size: tuple[int, int]) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(4, 5, 3, padding=1)
    ).double()
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    rows, columns = ((n + 1) // 2 for n in size)

    def middle(image: Tensor) -> float:
        with torch.no_grad():
            values = net(image[None])[0, :, rows // 2, columns // 2]
        return sum(max(value.item(), 0.0) for value in values)

    step = 1e-5
    expected = torch.zeros(size, dtype=torch.float64)
    for image, (c, y, x) in itertools.product(
        images, itertools.product(range(3), *map(range, size))
    ):
        nudge = torch.zeros_like(image)
        nudge[c, y, x] = step
        slope = (middle(image + nudge) - middle(image - nudge)) / (2 * step)
        expected[y, x] += abs(slope) / 2  # images
    field = receptive_field(net, images)
    assert_close(field.contribution, expected, 1e-6)
    wanted = (rows // 2 + 0.5) * size[0] / rows, (columns // 2 + 0.5) * size[1] / columns
    assert field.centre == pytest.approx(wanted)
    # the control: of another position
    assert relative_error(expected.roll(2, dims=1), field.contribution) > 0.1


def test_one_convolution() -> None:
    conv = rectified(nn.Conv2d(3, 4, 3, padding=1))
    field = receptive_field(conv, torch.randn(1, 3, 9, 13))
    expected = torch.zeros(9, 13)
    expected[3:6, 5:8] = conv.weight.sum(0).abs().sum(0)
    assert_close(field.contribution, expected, 1e-6)
    assert field.centre == (4.5, 6.5)
    shuffled = conv.weight.detach().flip(3)
    conv.weight.data = shuffled.clone()
    assert (
        relative_error(receptive_field(conv, torch.randn(1, 3, 9, 13)).contribution, expected) > 0.1
    )


def test_two_convolutions() -> None:
    convs = [rectified(nn.Conv2d(3, 3, 3, padding=1, groups=3)) for _ in range(2)]
    for conv in convs:
        nn.init.ones_(conv.weight)
    field = receptive_field(nn.Sequential(*convs), torch.randn(2, 3, 11, 8))
    once = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0])
    expected = torch.zeros(11, 8)
    expected[3:8, 2:7] = 3 * torch.outer(once, once)
    assert_close(field.contribution, expected, 1e-6)
    nn.init.zeros_(convs[1].weight)
    with pytest.raises(ValueError, match='no pixel contributes'):
        receptive_field(nn.Sequential(*convs), torch.randn(2, 3, 11, 8))


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_a_mixer_covers_the_cross(size: tuple[int, int]) -> None:
    """Both arms in full, their taps counted from the middle and wrapped around."""
    mixer = ParCMixer(4, size)
    for conv in (mixer.conv_h, mixer.conv_w):
        rectified(conv)
    images = torch.randn(2, 4, *size)
    y, x = (n // 2 for n in size)
    arms = [conv.weight.abs().sum((0, 1)) for conv in (mixer.conv_h, mixer.conv_w)]
    expected = torch.zeros(size)
    expected[:, x] += arms[0].roll(y)
    expected[y] += arms[1].roll(x)
    field = receptive_field(mixer, images)
    assert_close(field.contribution, expected, 1e-5)
    assert int((field.contribution > 0).sum()) == sum(size) - 1
    # controls: a kernel that is shuffled, and one that is not there
    mixer.conv_h.weight.data = mixer.conv_h.weight.data.roll(1, dims=-1)
    assert relative_error(receptive_field(mixer, images).contribution, expected) > 0.05
    nn.init.zeros_(mixer.conv_w.weight)
    contribution = receptive_field(mixer, images).contribution
    assert (contribution[:, x] > 0).all()
    contribution[:, x] = 0
    assert not contribution.any()


def test_height_and_width_exchanged() -> None:
    backbone = toy_backbone()
    images = torch.randn(2, 3, 97, 131)
    field = receptive_field(backbone, images)
    turned = receptive_field(with_axes_exchanged(backbone), images.mT)
    assert_close(turned.contribution.mT, field.contribution, 1e-3)
    assert turned.centre == field.centre[::-1]
    wrong = receptive_field(with_axes_exchanged(backbone, parc=False), images.mT)
    assert relative_error(wrong.contribution.mT, field.contribution) > 0.01


def test_images_are_averaged() -> None:
    backbone = toy_backbone()
    images = torch.randn(3, 3, 64, 64)
    each = [receptive_field(backbone, image[None]).contribution for image in images]
    assert_close(receptive_field(backbone, images).contribution, sum(each) / 3, 1e-5)
    assert relative_error(each[0], each[1]) > 0.1


def test_the_kernels_count() -> None:
    """A ParC layer in a backbone: without its kernels the field is another one."""
    backbone = toy_backbone()
    images = torch.randn(1, 3, 352, 352)
    before = receptive_field(backbone, images)
    for mixer in mixers(backbone).values():
        nn.init.zeros_(mixer.conv_h.weight)
        nn.init.zeros_(mixer.conv_w.weight)
    after = receptive_field(backbone, images)
    assert relative_error(after.contribution, before.contribution) > 0.1
    # of the last stage's 11 x 11 positions the middle one sees its row and column through ParC
    for arm in (slice(160, 192), (slice(None), slice(160, 192))):
        assert (before.contribution[arm] > 0).all() and not (after.contribution[arm] > 0).all()


@pytest.mark.parametrize('with_cp', [False, True])
def test_the_backbone_is_left_as_it_was(with_cp: bool) -> None:
    backbone = toy_backbone(with_cp=with_cp)
    modules, parameters = list(backbone.modules()), list(backbone.parameters())
    for i, module in enumerate(modules):
        module.training = i % 3 == 0
    for i, parameter in enumerate(parameters):
        parameter.requires_grad_(i % 2 == 0)
    values = {name: value.clone() for name, value in backbone.state_dict().items()}
    images = torch.randn(1, 3, 64, 64)
    field = receptive_field(backbone, images)
    assert [m.training for m in modules] == [i % 3 == 0 for i in range(len(modules))]
    assert [p.requires_grad for p in parameters] == [i % 2 == 0 for i in range(len(parameters))]
    assert all(p.grad is None for p in parameters)
    assert all(torch.equal(value, values[name]) for name, value in backbone.state_dict().items())
    with torch.no_grad():  # nor does it matter in which context
        again = receptive_field(in_eval(backbone), images)
    assert_close(again.contribution, field.contribution, 1e-6)


class Given(nn.Module):
    """Returns what a function makes of the images."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> object:
        return self.function(images)


@pytest.mark.parametrize(
    'function, said',
    [
        (lambda x: (x, x.mean((2, 3))), r'no map .* \(1, 3\)'),
        (lambda x: {'maps': x}, 'no map .* dict'),
        (lambda x: (), 'no map .* tuple'),
        (lambda x: x.detach(), 'does not depend'),
        (lambda x: x.abs().neg(), 'no pixel contributes'),  # nothing but rectified values
    ],
)
def test_no_map(function, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        receptive_field(Given(function), torch.randn(2, 3, 8, 8))


def test_no_images() -> None:
    for shape in ((0, 3, 8, 8), (3, 8, 8)):
        with pytest.raises(ValueError, match='images are'):
            receptive_field(Given(lambda x: x), torch.zeros(shape))


# The shares


def shares(field: Field) -> list[float]:
    return [share(p) for share in (field.pixels, field.rectangle) for p in PERCENT]


@pytest.mark.parametrize('size', [(10, 20), (20, 10), (7, 12)], ids=str)
def test_shares_of_any_map(size: tuple[int, int]) -> None:
    """Both against the plainest search, off the middle, too."""
    height, width = size
    values = torch.rand(size, dtype=torch.float64) ** 4
    for centre in ((height / 2, width / 2), (3.5, 4.5)):
        field = Field(values, centre)
        found = []
        for percent in PERCENT:
            count, held = 0, 0.0
            while held < percent / 100 * values.sum():
                held += values.flatten().sort(descending=True).values[count]
                count += 1
            found.append(count / values.numel())
        for percent in PERCENT:
            for step in range(1, 100 * height * width):
                # half a height and half a width in the image's aspect ratio
                down, right = (n * step / (100 * height) / 2 + 1e-6 for n in size)
                rows = [i for i in range(height) if max(centre[0] - i, i + 1 - centre[0]) <= down]
                columns = [
                    i for i in range(width) if max(centre[1] - i, i + 1 - centre[1]) <= right
                ]
                inside = values[rows][:, columns]
                if inside.sum() >= values.sum() * percent / 100:
                    break
            found.append(inside.numel() / values.numel())
        assert shares(field) == pytest.approx(found)
        assert shares(Field(values * 1e-20, centre)) == pytest.approx(found)


def test_shares_of_known_maps() -> None:
    uniform = Field(torch.ones(10, 20), (5.0, 10.0))
    assert [uniform.pixels(p) for p in (20, 50, 100)] == [0.2, 0.5, 1.0]
    # rectangles of 6 x 14 (42 %) and 8 x 16 pixels
    assert [uniform.rectangle(p) for p in (41, 43, 100)] == [0.42, 0.64, 1.0]

    delta = torch.zeros(5, 5)
    delta[2, 2] = 3.0
    assert shares(Field(delta, (2.5, 2.5))) == [1 / 25] * 8
    corner = delta.roll((2, 2), (0, 1))
    assert shares(Field(corner, (2.5, 2.5))) == [1 / 25] * 4 + [1.0] * 4
    assert shares(Field(corner, (4.5, 4.5))) == [1 / 25] * 8

    cross = torch.zeros(9, 9)
    cross[4], cross[:, 4] = 1.0, 1.0
    field = Field(cross, (4.5, 4.5))
    assert (field.pixels(99), field.rectangle(99)) == (17 / 81, 1.0)


@pytest.mark.parametrize('percent', [0, -1, 100.1])
def test_no_share(percent: float) -> None:
    field = Field(torch.ones(3, 3), (1.5, 1.5))
    for share in (field.pixels, field.rectangle):
        with pytest.raises(ValueError, match='at most 100 percent'):
            share(percent)


@pytest.mark.parametrize(
    'values', [torch.zeros(3, 3), -torch.ones(3, 3), torch.ones(3), torch.full((2, 2), torch.nan)]
)
def test_no_field(values: Tensor) -> None:
    with pytest.raises(ValueError, match=r'receptive field|no pixel'):
        Field(values, (1.0, 1.0))


# Networks with random weights


def test_prepared_branches_count() -> None:
    torch.manual_seed(0)
    backbone = MODELS.build(dict(type='mmparc.ParCResNet', depth=50, base_channels=8))
    backbone.init_weights()
    backbone.train()
    images = torch.randn(2, 3, 97, 64)
    closed = receptive_field(backbone, images)
    block = backbone.layer1[0]
    assert not block.norm3.weight.any()
    prepare_untrained(backbone, images)
    assert (block.norm3.weight == 1).all() and not block.norm3.bias.any()
    assert backbone.norm1.momentum == 0.1 and backbone.norm1.training
    values = backbone.conv1(images).detach()
    assert_close(backbone.norm1.running_mean, values.mean((0, 2, 3)), 1e-4)
    assert_close(backbone.norm1.running_var, values.var((0, 2, 3)), 1e-4)
    assert receptive_field(backbone, images).pixels(50) > 20 * closed.pixels(50)


def test_layer_scales_are_opened() -> None:
    settings = dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8]))
    backbone = MODELS.build(dict(type='mmpretrain.ConvNeXt', **settings))
    backbone.init_weights()
    names = [name for name, _ in backbone.named_parameters() if name.endswith('gamma')]
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    prepare_untrained(backbone, torch.randn(1, 3, 64, 64))
    after = backbone.state_dict()
    assert [name for name in after if not torch.equal(after[name], before[name])] == names
    assert len(names) == 4 and all((after[name] == 1).all() for name in names)


def test_norms_behind_a_global_average_are_left() -> None:
    backbone = MODELS.build(load_fragment('parcnet-micro').for_maps)
    kept = []
    hooks = [
        m.register_forward_hook(lambda m, args, _: kept.append((m, args[0][0, 0].numel() == 1)))
        for m in backbone.modules()
        if isinstance(m, nn.BatchNorm2d)
    ]
    prepare_untrained(backbone, torch.randn(1, 3, 64, 96))
    for hook in hooks:
        hook.remove()
    assert {single for _, single in kept} == {True, False}
    for norm, single in kept:
        assert (norm.running_var == 1).all() == single


VIT = dict(type='mmpretrain.VisionTransformer', arch='deit-tiny', out_type='featmap')
SWIN = dict(
    type='mmpretrain.SwinTransformer',
    arch=dict(embed_dims=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4]),
    pad_small_map=True,
)


@pytest.mark.parametrize(
    'settings, size, stride',
    [
        (VIT, (112, 96), 16),
        (SWIN, (97, 160), 32),
        (load_fragment('mobilevit-micro').for_maps, (96, 131), 32),
    ],
    ids=['ViT', 'Swin', 'MobileViT'],
)
def test_networks_with_attention(settings: dict, size: tuple[int, int], stride: int) -> None:
    backbone = MODELS.build(settings)
    images = torch.randn(1, 3, *size)
    prepare_untrained(backbone, images)
    field = receptive_field(backbone, images)
    assert field.contribution.shape == size
    for n, centre in zip(size, field.centre):
        assert abs(centre - n / 2) <= stride / 2 + 0.5
    if stride == 16:  # everything attends to everything
        assert (field.contribution > 0).all()
    assert 0 < field.pixels(20) < field.pixels(50) < field.pixels(99) <= 1


# The tool

SMALL = ('--shape', '64', '96', '--inputs', '2')


def run(*args: object, cwd: Path) -> str:
    result = run_tool(TOOL, *args, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def error_line(*args: object, cwd: Path) -> str:
    result = run_tool(TOOL, *args, cwd=cwd)
    assert result.returncode == 1, result.stdout + result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith('error: ')
    return line


def read_csv(folder: Path) -> list[dict[str, str]]:
    lines = (folder / 'erf.csv').read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith('# ')))


def measured(folder: Path, model: str) -> list[float]:
    """As :func:`shares`, from the table."""
    rows = [row for row in read_csv(folder) if row['model'] == model]
    assert [int(row['percent']) for row in rows] == list(PERCENT)
    return [float(row[f'{kind} %']) / 100 for kind in ('pixels', 'rectangle') for row in rows]


def assert_tables_agree(folder: Path) -> None:
    """Each number of erf.md is that of erf.csv."""
    lines = [line for line in (folder / 'erf.md').read_text().splitlines() if line.startswith('|')]
    shown = [[cell.strip() for cell in line[1:-1].split('|')] for line in lines[2:]]
    rows = read_csv(folder)
    assert len(shown) * len(PERCENT) == len(rows)
    for i, cells in enumerate(shown):
        own = rows[i * len(PERCENT) : (i + 1) * len(PERCENT)]
        assert cells[:3] == [own[0][key] for key in ('model', 'variant', 'checkpoint')]
        assert cells[3:] == [row[f'{kind} %'] for kind in ('pixels', 'rectangle') for row in own]


def assert_picture(path: Path, panels: int) -> None:
    picture = cv2.imread(str(path))
    assert picture is not None and picture.shape[1] > 150 * panels
    assert picture.std() > 20 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


@pytest.mark.slow
def test_pairs(tmp_path: Path) -> None:
    """Named by either twin; the numbers are the library's, of the seed's weights and noise."""
    out = tmp_path / 'out'
    names = ('parc-convnext-micro', 'resnet-micro')
    said = run(*names, *SMALL, '--seed', 3, '--out', out, cwd=tmp_path)
    rows = read_csv(out)
    assert [(row['model'], row['variant']) for row in rows[:: len(PERCENT)]] == [
        ('convnext-micro', 'plain'),
        ('parc-convnext-micro', 'parc'),
        ('resnet-micro', 'plain'),
        ('parc-resnet-micro', 'parc'),
    ]
    assert {(row['height'], row['width'], row['checkpoint']) for row in rows} == {
        ('64', '96', 'none')
    }
    assert_tables_agree(out)
    pictures = {'erf.png': 4, 'parc-convnext-micro.png': 2, 'parc-resnet-micro.png': 2}
    assert {path.name for path in out.iterdir()} == {'erf.csv', 'erf.md', *pictures}
    for name, panels in pictures.items():
        assert_picture(out / name, panels)
        assert str(out / name) in said
    assert 'command: tools/analysis/erf.py parc-convnext-micro' in (out / 'erf.md').read_text()

    noise = np.random.default_rng(3).standard_normal((2, 64, 96, 3))[..., ::-1]
    images = torch.from_numpy(noise.copy()).permute(0, 3, 1, 2).float()
    torch.manual_seed(3)
    backbone = MODELS.build(load_fragment('parc-resnet-micro').for_maps)
    backbone.init_weights()
    # the noise is BGR where the backbone takes RGB
    prepare_untrained(backbone, images.flip(1))
    expected = shares(receptive_field(backbone, images.flip(1)))
    assert measured(out, 'parc-resnet-micro') == pytest.approx(expected, rel=2e-2)

    # nothing is overwritten unless asked for
    before = {path: path.read_bytes() for path in out.iterdir()}
    line = error_line(*names, *SMALL, '--out', out, cwd=tmp_path)
    assert 'erf.csv' in line and '--force' in line
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    more = ('--as-initialised', '--overview-only', '--force', '--seed', 3)
    run('resnet-micro', *SMALL, *more, '--out', out, cwd=tmp_path)
    assert measured(out, 'resnet-micro')[2] < 0.1 * float(rows[10]['pixels %']) / 100
    assert 'as the models initialise them' in (out / 'erf.md').read_text()


def save(config: Path, path: Path, leave_out: str = 'nothing') -> nn.Module:
    """A checkpoint as mmengine's with weights of its own; returns the backbone that it holds."""
    cfg = Config.fromfile(config)
    torch.manual_seed(7)
    model = MODELS.build({**cfg.model, '_scope_': 'mmpretrain'})
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.3, 0.5)
    weights = {k: v for k, v in model.state_dict().items() if leave_out not in k}
    torch.save(dict(state_dict=weights, meta={}, message_hub={}), path)
    return in_eval(model.backbone)


@pytest.mark.slow
def test_configs_with_checkpoints(tmp_path: Path) -> None:
    """A classifier that pools is asked for its map; images are normalised as its config says."""
    backbone = save(TOY, tmp_path / 'parc.pth')
    save(PLAIN_TOY, tmp_path / 'plain.pth')
    folder, out = tmp_path / 'images', tmp_path / 'out'
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        cv2.imwrite(str(folder / f'{i}.png'), image)
    (folder / 'notes.txt').touch()
    run(
        *('--config', PLAIN_TOY, tmp_path / 'plain.pth'),
        *('--config', TOY, tmp_path / 'parc.pth'),
        *('--config', TOY, 'none'),
        *(*SMALL, '--images', folder, '--out', out),
        cwd=tmp_path,
    )
    rows = read_csv(out)
    assert [(row['variant'], Path(row['checkpoint']).name) for row in rows[:: len(PERCENT)]] == [
        ('plain', 'plain.pth'),
        ('parc', 'parc.pth'),
        ('parc', 'none'),
    ]
    assert_tables_agree(out)
    assert_picture(out / f'1_{TOY.stem}.png', 2)
    assert_picture(out / f'2_{TOY.stem}.png', 1)

    cfg = Config.fromfile(TOY)
    preprocessor = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
    assert preprocessor.to_rgb
    mean, std = (torch.tensor(preprocessor[key]).view(3, 1, 1) for key in ('mean', 'std'))
    rgb = torch.from_numpy(pixels[..., ::-1].copy()).permute(0, 3, 1, 2)
    backbone.gap_before_final_norm = False
    field = receptive_field(backbone, (rgb - mean) / std)
    trained = [row for row in rows if row['checkpoint'].endswith('parc.pth')]
    found = [float(row[f'{kind} %']) / 100 for kind in ('pixels', 'rectangle') for row in trained]
    assert found == pytest.approx(shares(field), rel=2e-2)
    # the control: images that are not normalised
    assert found != pytest.approx(shares(receptive_field(backbone, rgb.float())), rel=2e-2)


@pytest.mark.parametrize('leave_out', ['nothing', 'stages.3.0'])
def test_another_checkpoint(leave_out: str, tmp_path: Path) -> None:
    """One of the twin, and one that lacks a block."""
    config = PLAIN_TOY if leave_out == 'nothing' else TOY
    save(config, tmp_path / 'other.pth', leave_out)
    line = error_line('--config', TOY, 'other.pth', *SMALL, cwd=tmp_path)
    assert "'other.pth' is no checkpoint of this model: it lacks stages." in line


ERRORS = {
    'a name': (['resnet51'], "no backbone 'resnet51': did you mean 'resnet50'?"),
    'both': (['resnet50', '--config', TOY, 'none'], 'not both'),
    'a config': (['--config', 'no.py', 'none'], "no config 'no.py'"),
    'a checkpoint': (['--config', TOY, 'no.pth'], "no checkpoint 'no.pth'"),
    'inputs': (['--inputs', '0'], 'positive numbers'),
    'a shape': (['--shape', '0', '3'], 'positive numbers'),
    'images': (['--images', 'no'], "no folder 'no'"),
    'no images': (['--images', 'empty'], 'holds no image'),
    'broken images': (['--images', 'broken'], "'broken/a.png' is no image"),
    'out': (['--out', 'file'], "'file' is no folder"),
}


@pytest.mark.parametrize('args, said', ERRORS.values(), ids=ERRORS)
def test_errors(args: list, said: str, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'broken/a.png').write_text('no picture')
    assert said in error_line(*args, cwd=tmp_path)
    assert not (tmp_path / 'work_dirs').exists()


def test_a_backbone_that_cannot_run(tmp_path: Path) -> None:
    line = error_line('convnext-micro', '--shape', '3', '3', cwd=tmp_path)
    assert 'convnext-micro on images of 8 x 3 x 3 x 3' in line and '--shape' in line


# What is published


def test_published_pairs() -> None:
    """All pairs are there."""
    folder = ROOT / 'docs/benchmarks'
    assert_tables_agree(folder)
    models = [row['model'] for row in read_csv(folder)[:: len(PERCENT)]]
    expected = [name for parc, plain in twin_names() for name in (plain, parc)]
    assert models == expected, 'run the command of erf.md again'
    for row in read_csv(folder):
        assert row['variant'] == ('parc' if row['model'].startswith('parc') else 'plain')
    assert (folder / 'erf.png').stat().st_size < 400_000
