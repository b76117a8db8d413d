"""ParCMobileNetV2: which blocks hold ParC, any image size, all that mmpretrain's class promises.

The independent sides of the comparisons: parameter counts of the published models, mmpretrain's own
MobileNetV2, and the reference operator on what a block really receives. Except for counts and
initial values a narrow network is used.
"""

import pytest
import torch
from backbones import (
    calls_of_mixers,
    classifier,
    gradients,
    in_eval,
    kernel_sizes,
    mixer_reference,
    mixers,
    with_axes_exchanged,
)
from helpers import assert_close, relative_error
from mmengine.registry import DefaultScope
from mmpretrain.models import MobileNetV2
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS

from mmparc.models.backbones import ParCMobileNetV2
from mmparc.ops import BACKENDS

NARROW = dict(widen_factor=0.25, out_indices=(1, 2, 4, 6))
DEPTHS = (1, 2, 3, 4, 3, 3, 1)
# batch, height, width: the odd sizes of detection and segmentation
IMAGES = [(2, 97, 131), (1, 200, 336), (1, 224, 224)]
PUBLISHED = {
    'layer4.2.conv.1.conv': (14, 14),
    'layer4.3.conv.1.conv': (14, 14),
    'layer5.2.conv.1.conv': (14, 14),
    'layer6.2.conv.1.conv': (7, 7),
}


def build(**changes):
    torch.manual_seed(0)
    return ParCMobileNetV2(**{**NARROW, **changes})


# Structure


@pytest.mark.parametrize(
    ('backbone', 'parameters'),
    [
        (dict(type='mmparc.ParCMobileNetV2'), 3_532_136),
        (dict(type='mmparc.ParCMobileNetV2', parc_starts=DEPTHS), 3_504_872),
        (dict(type='MobileNetV2'), 3_504_872),
    ],
    ids=['published', 'without parc', 'plain'],
)
def test_published_parameter_counts(backbone, parameters):
    model = classifier(backbone, 1280, 1000)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize('widen_factor', [0.25, 0.35, 0.5, 0.75, 1.0, 1.4])
def test_published_blocks_hold_depthwise_parc(widen_factor):
    """At any width; only a stage's first ParC block has an embedding."""
    model = build(widen_factor=widen_factor)
    assert kernel_sizes(model) == PUBLISHED
    for name, mixer in mixers(model).items():
        half = model.get_submodule(name.removesuffix('.conv')).norm.num_features // 2
        for conv in (mixer.conv_h, mixer.conv_w):
            assert conv.weight.shape[:2] == (half, 1)
            assert conv.bias.shape == (half,)
            assert (conv.pos_embed is None) == (name == 'layer4.3.conv.1.conv')


@pytest.mark.parametrize(
    ('starts', 'blocks', 'embedded'),
    [
        (DEPTHS, [], []),
        ((0, 2, 3, 4, 3, 3, 1), ['layer1.0.conv.0.conv'], ['layer1.0.conv.0.conv']),
        (
            [1, 1, 3, 4, 0, 3, 0],
            ['layer2.1', 'layer5.0', 'layer5.1', 'layer5.2', 'layer7.0'],
            ['layer2.1', 'layer5.0', 'layer7.0'],
        ),
    ],
    ids=str,
)
def test_starts_say_which_blocks(starts, blocks, embedded):
    model = build(parc_starts=starts)
    full = {name: name if '.conv' in name else f'{name}.conv.1.conv' for name in blocks}
    assert list(mixers(model)) == list(full.values())
    found = [name for name, mixer in mixers(model).items() if mixer.conv_h.pos_embed is not None]
    assert found == [full[name] for name in embedded]
    assert model(torch.randn(2, 3, 64, 64))[-1].isfinite().all()


@pytest.mark.parametrize('stage', [1, 2, 3, 5])
def test_a_strided_convolution_is_not_replaced(stage):
    starts = [0 if i == stage else depth for i, depth in enumerate(DEPTHS)]
    with pytest.raises(ValueError, match=rf'set parc_starts\[{stage}\] to 1 or more'):
        build(parc_starts=starts)


@pytest.mark.parametrize(
    'starts',
    [(3, 4, 3, 2), (), (1, 2, 3, 2, 2, -1, 1), (2, 2, 3, 2, 2, 2, 1), (1, 2, 3, 5, 2, 2, 1)],
    ids=str,
)
def test_wrong_starts(starts):
    with pytest.raises(ValueError, match='parc_starts must'):
        build(parc_starts=starts)


def test_misspelt_argument_is_refused():
    with pytest.raises(TypeError):
        build(parc_start=DEPTHS)


@pytest.mark.parametrize(
    ('img_size', 'deep', 'deepest'),
    [
        (224, (14, 14), (7, 7)),
        (256, (16, 16), (8, 8)),
        ((192, 320), (12, 20), (6, 10)),
        ((320, 192), (20, 12), (10, 6)),
        ((97, 131), (7, 9), (4, 5)),
        (16, (1, 1), (1, 1)),
    ],
    ids=str,
)
def test_kernels_are_as_long_as_the_map(img_size, deep, deepest):
    """Also seen from the map itself: at that size nothing is resized."""
    model = in_eval(build(img_size=img_size))
    sizes = kernel_sizes(model)
    assert set(sizes) == set(PUBLISHED)
    assert all(size == (deepest if name[5] == '6' else deep) for name, size in sizes.items())
    size = img_size if isinstance(img_size, tuple) else (img_size, img_size)
    for mixer, received, _ in calls_of_mixers(model, torch.randn(1, 3, *size)):
        kernel = mixer.conv_h.weight.shape[-1], mixer.conv_w.weight.shape[-1]
        assert tuple(received.shape[2:]) == kernel


# Forward and backward


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('image', IMAGES, ids=str)
def test_any_image_size(image, mode):
    """The pyramid of the plain twin, at any size."""
    x = torch.randn(image[0], 3, *image[1:])
    model, plain = build(), MobileNetV2(**NARROW)
    for m in (model, plain):
        m.train(mode == 'train')
    with torch.no_grad():
        outputs, plain_outputs = model(x), plain(x)
    assert [o.shape for o in outputs] == [o.shape for o in plain_outputs]
    assert all(o.isfinite().all() for o in outputs)


@pytest.mark.parametrize('resize', ['interpolate', 'interpolate_sum'])
@pytest.mark.parametrize('image', IMAGES, ids=str)
def test_blocks_compute_depthwise_parc(image, resize):
    """The first half of a block's channels goes along H, the second along W."""
    model = in_eval(build(resize=resize).double())
    calls = calls_of_mixers(model, torch.randn(image[0], 3, *image[1:], dtype=torch.float64))
    assert len(calls) == len(PUBLISHED)
    for mixer, x, output in calls:
        assert_close(output, mixer_reference(mixer, x, False, resize), 1e-10)


def test_norm_and_activation_follow_the_mixer():
    model = in_eval(build().double())
    block = model.layer4[2]
    expand, depthwise, project = block.conv
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
        x = torch.randn(2, expand.in_channels, 13, 9, dtype=torch.float64)
        mixed = mixer_reference(depthwise.conv, expand.bn(expand.conv(x)).clamp(0, 6), False)
        mixed = depthwise.bn(mixed)
        assert (mixed > 6).any()
        expected = project.bn(project.conv(mixed.clamp(0, 6))) + x
        assert_close(block(x), expected, 1e-10)


def test_without_parc_it_is_the_plain_network():
    model, plain = build(parc_starts=DEPTHS), MobileNetV2(**NARROW)
    plain.load_state_dict(model.state_dict(), strict=True)
    x = torch.randn(2, 3, 97, 131)
    for a, b in zip(model(x), plain(x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('image', IMAGES[:2], ids=str)
def test_backends_agree(image):
    x = torch.randn(image[0], 3, *image[1:], dtype=torch.float64)
    runs = {}
    for backend in (*BACKENDS, 'auto'):
        model = in_eval(build(backend=backend).double())
        assert {m.conv_h.backend for m in mixers(model).values()} == {backend}
        with torch.no_grad():
            runs[backend] = model(x)
            # negative control: the comparison sees a kernel
            model.layer5[2].conv[1].conv.conv_h.weight.zero_()
            assert relative_error(model(x)[2], runs[backend][2]) > 1e-3
    for backend, outputs in runs.items():
        for index, output in enumerate(outputs):
            assert_close(output, runs['direct'][index], 1e-10, f'{backend}, output {index}')


@pytest.mark.parametrize('size', [(97, 131), (200, 336), (224, 224)], ids=str)
def test_height_and_width_exchanged(size):
    model = in_eval(build(img_size=(192, 320)).double())
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = model(image)
        exchanged = with_axes_exchanged(model)(image.mT)
        for a, b in zip(exchanged, expected, strict=True):
            assert_close(a.mT, b, 1e-10)
        wrong = with_axes_exchanged(model, parc=False)(image.mT)
    assert torch.equal(wrong[1].mT, exchanged[1].mT)  # before any ParC
    assert relative_error(wrong[3].mT, expected[3]) > 1e-3


def test_every_parameter_gets_a_gradient():
    """With the norms' own statistics: else a norm takes a constant such as ParC's bias out."""
    model = build(norm_eval=True, out_indices=(1, 2, 4, 6, 7))
    model.init_weights()
    for name, grad in gradients(model, torch.randn(2, 3, 97, 131)).items():
        assert grad is not None and grad.isfinite().all() and grad.any(), name


@pytest.mark.parametrize('norm_eval', [False, True])
def test_checkpointing_gives_the_same_gradients(norm_eval):
    image = torch.randn(2, 3, 97, 131, dtype=torch.float64)
    plain, checkpointed = (
        gradients(build(with_cp=with_cp, norm_eval=norm_eval, out_indices=(6, 7)).double(), image)
        for with_cp in (False, True)
    )
    for name, grad in plain.items():
        if not norm_eval and name.endswith(('conv_h.bias', 'conv_w.bias')):
            assert max(grad.abs().max(), checkpointed[name].abs().max()) < 1e-10  # see above
        else:
            assert grad.any()
            assert_close(checkpointed[name], grad, 1e-12, name)


def test_checkpointing_runs_the_mixers_again():
    """Negative control of the test above: with_cp really reaches the ParC blocks."""
    calls = {False: [], True: []}
    for with_cp, seen in calls.items():
        model = build(with_cp=with_cp)
        mixer = model.layer6[2].conv[1].conv
        mixer.register_forward_hook(lambda *call, seen=seen: seen.append(call))
        gradients(model, torch.randn(2, 3, 64, 64))
    assert (len(calls[False]), len(calls[True])) == (1, 2)


# What the parent promises


@pytest.mark.parametrize('frozen', [-1, 0, 2, 5, 7])
def test_frozen_stages(frozen):
    """The parent freezes when it is set to training."""
    model = build(frozen_stages=frozen)
    model.train()
    for name, parameter in model.named_parameters():
        part = name.partition('.')[0]
        stage = {'conv1': 0, 'conv2': 8}[part] if part[:4] == 'conv' else int(part[5:])
        assert parameter.requires_grad is (stage > frozen), name
    for stage in range(1, 8):
        modules = getattr(model, f'layer{stage}').modules()
        assert all(m.training is (stage > frozen) for m in modules)


def test_norm_eval():
    model = build(norm_eval=True)
    model.train()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms)
    assert all(m.training for m in mixers(model).values())


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_layer_depth(prefix):
    """Stem, seven stages, final 1x1, and the rest: ten layers, in the order of the forward pass."""
    model = build()
    depths = [model.get_layer_depth(prefix + name, prefix) for name, _ in model.named_parameters()]
    assert [depth for depth, _ in depths] == sorted(depth for depth, _ in depths)
    assert {layers for _, layers in depths} == {10}
    at = {
        name: model.get_layer_depth(prefix + name, prefix)[0]
        for name, _ in model.named_parameters()
    }
    assert (at['conv1.conv.weight'], at['conv1.bn.bias']) == (0, 0)
    assert at['layer1.0.conv.0.conv.weight'] == 1
    assert at['layer4.0.conv.0.conv.weight'] == at['layer4.2.conv.1.conv.conv_h.pos_embed'] == 4
    assert at['layer7.0.conv.2.bn.weight'] == 7
    assert at['conv2.conv.weight'] == 8
    assert model.get_layer_depth('head.fc.weight', prefix) == (9, 10)
    # another module's name may begin like one of the backbone's
    assert model.get_layer_depth('neck.conv1.weight', 'backbone.') == (9, 10)


def test_layer_depth_drives_mmpretrains_decay():
    model = classifier(dict(type='mmparc.ParCMobileNetV2', **NARROW), 1280)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
            dict(
                type='LearningRateDecayOptimWrapperConstructor',
                optim_wrapper_cfg=dict(optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1)),
                paramwise_cfg=dict(layer_decay_rate=0.5),
            )
        )
        wrapper = constructor(model)
    rates = {g['param_name']: g['lr'] for g in wrapper.optimizer.param_groups}
    assert rates['head.fc.weight'] == 1.0
    assert rates['backbone.conv2.conv.weight'] == 0.5
    assert rates['backbone.layer6.2.conv.1.conv.conv_w.weight'] == 0.5**3
    assert rates['backbone.conv1.conv.weight'] == 0.5**9
    assert len(rates) == len(list(model.parameters()))


@pytest.mark.parametrize('inside', ['alone', 'classifier'])
def test_initial_values(inside):
    if inside == 'classifier':
        model = classifier(dict(type='mmparc.ParCMobileNetV2'), 1280)
    else:
        model = ParCMobileNetV2()
    model.init_weights()
    if inside == 'classifier':
        assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
        model = model.backbone
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            # torch's fan out of a depthwise convolution counts every output channel
            fan_out = module.out_channels * module.weight[0, 0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), name
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()
    embeddings = []
    for mixer in mixers(model).values():
        for conv in (mixer.conv_h, mixer.conv_w):
            kernel = conv.weight.detach()
            std = (2 / (kernel.shape[0] * kernel.shape[2])) ** 0.5
            assert kernel.std().item() == pytest.approx(std, rel=0.05)
            assert kernel.abs().max() > 2.5 * std  # normal: a uniform one ends at 1.7
            assert not conv.bias.any()
            if conv.pos_embed is not None:
                embeddings.append(conv.pos_embed.detach().flatten())
    assert torch.cat(embeddings).std().item() == pytest.approx(0.02, rel=0.03)
