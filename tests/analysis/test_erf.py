"""Effective receptive fields: against finite differences, known kernels and hand-made maps."""

import csv
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from backbones import in_eval, with_axes_exchanged
from helpers import ROOT, assert_close, relative_error
from mmengine.config import Config
from tool_calls import assert_picture, call, refusal
from torch import Tensor, nn

from mmparc.analysis.erf import Field, prepare_untrained, read_images, receptive_field
from mmparc.models import ParCMixer
from mmparc.registry import MODELS
from mmparc.swap.fragments import load_fragment, twin_names

TOY = ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py'
PLAIN_TOY = ROOT / 'configs/cls/convnext/convnext-micro_toy.py'
PERCENT = (20, 30, 50, 99)


def rectified(conv: nn.Module) -> nn.Module:
    """With a bias that keeps every output above 0, so that nothing is rectified away."""
    nn.init.constant_(conv.bias, 100.0)
    return conv


def toy_backbone(**settings) -> nn.Module:
    """With branches that count: at initialisation nearly all of the field is the skip path's."""
    fragment = load_fragment('parc-convnext-micro').for_maps
    backbone = in_eval(MODELS.build({**fragment, 'gap_before_final_norm': False, **settings}))
    for parameter in backbone.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return backbone


# The contributions


def test_finite_differences() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(4, 5, 3, padding=1)
    ).double()
    size = (9, 14)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    rows, columns = ((n + 1) // 2 for n in size)

    def middle(image: Tensor) -> float:
        with torch.no_grad():
            return net(image[None])[0, :, rows // 2, columns // 2].clamp(min=0).sum().item()

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


def test_a_mixer_covers_the_cross() -> None:
    """Both arms in full, their taps counted from the middle and wrapped around."""
    for size in ((9, 14), (14, 9)):
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
        # controls: a kernel that is shuffled, and one that is zero
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
    # images are averaged
    each = [receptive_field(backbone, image[None]).contribution for image in images]
    assert_close(field.contribution, sum(each) / 2, 1e-5)
    assert relative_error(each[0], each[1]) > 0.1


class Given(nn.Module):
    """Returns what a function makes of the images."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> object:
        return self.function(images)


def test_no_field() -> None:
    images = torch.randn(2, 3, 8, 8)
    for function in (
        lambda x: (x, x.mean((2, 3))),
        lambda x: {'maps': x},
        lambda x: (),
        lambda x: x.detach(),
        lambda x: x.abs().neg(),  # nothing but rectified values
    ):
        with pytest.raises(ValueError):
            receptive_field(Given(function), images)
    assert receptive_field(Given(lambda x: [x.sum(1, keepdim=True) ** 2]), images).pixels(99) < 0.1


# The shares


def shares(field: Field) -> list[float]:
    return [share(p) for share in (field.pixels, field.rectangle) for p in PERCENT]


def test_shares_of_any_map() -> None:
    """Both against the plainest search, off the middle, too."""
    height, width = size = 7, 12
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


def test_shares_of_known_maps() -> None:
    uniform = Field(torch.ones(10, 20), (5.0, 10.0))
    assert [uniform.pixels(p) for p in (20, 50, 100)] == [0.2, 0.5, 1.0]
    # rectangles of 6 x 14 (42 %) and 8 x 16 pixels
    assert [uniform.rectangle(p) for p in (41, 43, 100)] == [0.42, 0.64, 1.0]

    cross = torch.zeros(9, 9)
    cross[4], cross[:, 4] = 1.0, 1.0
    field = Field(cross, (4.5, 4.5))
    assert (field.pixels(99), field.rectangle(99)) == (17 / 81, 1.0)


# Networks with random weights


def test_prepared_branches_count() -> None:
    backbone = MODELS.build(dict(type='mmparc.ParCResNet', depth=50, base_channels=8))
    backbone.init_weights()
    backbone.train()
    images = torch.randn(2, 3, 97, 64)
    closed = receptive_field(backbone, images)
    block = backbone.layer1[0]
    assert not block.norm3.weight.any()
    prepare_untrained(backbone, images)
    assert (block.norm3.weight == 1).all() and not block.norm3.bias.any()
    values = backbone.conv1(images).detach()
    assert_close(backbone.norm1.running_mean, values.mean((0, 2, 3)), 1e-4)
    assert_close(backbone.norm1.running_var, values.var((0, 2, 3)), 1e-4)
    assert receptive_field(backbone, images).pixels(50) > 20 * closed.pixels(50)


def test_norms_behind_a_global_average_are_left() -> None:
    backbone = MODELS.build(load_fragment('parcnet-micro').for_maps)
    kept = []
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(
                lambda m, args, _: kept.append((m, args[0][0, 0].numel() == 1))
            )
    prepare_untrained(backbone, torch.randn(1, 3, 64, 96))
    assert {single for _, single in kept} == {True, False}
    for norm, single in kept:
        assert (norm.running_var == 1).all() == single


# The command

SMALL = ('--shape', '64', '96', '--inputs', '2')


def read_csv(folder: Path) -> list[dict[str, str]]:
    lines = (folder / 'erf.csv').read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith('# ')))


def measured(rows: list[dict[str, str]]) -> list[float]:
    """As :func:`shares`, from a backbone's rows of the table."""
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


def test_twins_by_name(tmp_path: Path) -> None:
    """The numbers are the library's, of the seed's weights and noise."""
    args = ('analysis/plot.py', 'erf', 'parc-resnet-micro', *SMALL, '--seed', 3, '--out', 'out')
    said = call(*args, cwd=tmp_path)
    rows = read_csv(tmp_path / 'out')
    assert [row['model'] for row in rows[::4]] == ['resnet-micro', 'parc-resnet-micro']
    assert [row['variant'] for row in rows[::4]] == ['plain', 'parc']
    assert {(row['height'], row['width']) for row in rows} == {('64', '96')}
    assert_tables_agree(tmp_path / 'out')
    assert_picture(tmp_path / 'out/erf.png')
    assert 'out/erf.png' in said

    noise = np.random.default_rng(3).standard_normal((2, 64, 96, 3))[..., ::-1]
    images = torch.from_numpy(noise.copy()).permute(0, 3, 1, 2).float()
    torch.manual_seed(3)
    backbone = MODELS.build(load_fragment('parc-resnet-micro').for_maps)
    backbone.init_weights()
    # the noise is BGR where the backbone takes RGB
    prepare_untrained(backbone, images.flip(1))
    expected = shares(receptive_field(backbone, images.flip(1)))
    assert measured(rows[4:]) == pytest.approx(expected, rel=2e-2)
    assert '--force' in refusal(*args, cwd=tmp_path)


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


def test_a_config_with_its_checkpoint(tmp_path: Path) -> None:
    """A classifier that pools is asked for its map; images are normalised as its config says."""
    backbone = save(TOY, tmp_path / 'parc.pth')
    folder = tmp_path / 'images'
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        cv2.imwrite(str(folder / f'{i}.png'), image)
    (folder / 'notes.txt').touch()
    pairs = ('--config', TOY, 'parc.pth', '--config', PLAIN_TOY, 'none')
    call(
        *('analysis/plot.py', 'erf', *pairs, *SMALL, '--images', 'images', '--out', 'out'),
        cwd=tmp_path,
    )
    rows = read_csv(tmp_path / 'out')
    assert [(row['variant'], row['checkpoint']) for row in rows[::4]] == [
        ('parc', 'parc.pth'),
        ('plain', 'none'),
    ]
    cfg = Config.fromfile(TOY)
    preprocessor = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
    assert preprocessor.to_rgb
    mean, std = (torch.tensor(preprocessor[key]).view(3, 1, 1) for key in ('mean', 'std'))
    rgb = torch.from_numpy(pixels[..., ::-1].copy()).permute(0, 3, 1, 2)
    backbone.gap_before_final_norm = False
    expected = shares(receptive_field(backbone, (rgb - mean) / std))
    assert measured(rows[:4]) == pytest.approx(expected, rel=2e-2)
    # the control: images that are not normalised
    other = shares(receptive_field(backbone, rgb.float()))
    assert measured(rows[:4]) != pytest.approx(other, rel=2e-2)


def test_images_of_all_classes(tmp_path: Path) -> None:
    """Evenly from folders of classes; the control is the first ones."""
    for number in range(6):
        path = tmp_path / f'class{number // 3}/{number}.png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((4, 4, 3), number, np.uint8))
    for count, expected in ((2, [0, 3]), (4, [0, 1, 3, 4]), (9, range(6))):
        images = read_images(tmp_path, count, (4, 4), seed=0)
        assert [image.mean() for image in images] == list(expected)


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'broken/a.png').write_text('no picture')
    save(PLAIN_TOY, tmp_path / 'twin.pth')
    save(TOY, tmp_path / 'part.pth', leave_out='stages.3.0')
    for args, named in (
        (['resnet51'], "'resnet50'"),
        (['resnet50', '--config', TOY, 'none'], '--config'),
        (['--config', 'no.py', 'none'], "'no.py'"),
        (['--config', TOY, 'no.pth'], "'no.pth'"),
        (['--config', TOY, 'twin.pth'], "'twin.pth'"),
        (['--config', TOY, 'part.pth'], 'stages.3.0'),
        (['--inputs', 0], '--inputs'),
        (['--shape', 0, 3], '--shape'),
        (['convnext-micro', '--shape', 3, 3], '3 x 3'),
        (['--images', 'no'], "'no'"),
        (['--images', 'empty'], "'empty'"),
        (['--images', 'broken'], "'broken/a.png'"),
        (['--out', 'file'], "'file'"),
    ):
        assert named in refusal('analysis/plot.py', 'erf', *args, cwd=tmp_path), args


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
