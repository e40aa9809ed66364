"""MSA2-Net, the reconstruction: counts as specified, mixtures that are what they say, slices that do not mix."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace

import networks_msa2net_reference as reference
import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from networks_support import assert_close, random_image, randomise
from torch import Tensor, nn

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.memory import network_memory
from LKSegmentLib.inference.segmentation import layout_for
from LKSegmentLib.networks.blocks.cswin import StripeAttention
from LKSegmentLib.networks.blocks.self_adaptive import SelfAdaptiveConv2d
from LKSegmentLib.networks.counting import count_parameters
from LKSegmentLib.networks.msa2net import AuxiliaryStage, MSA2Net
from LKSegmentLib.volumes import Grid


@pytest.fixture(scope="module")
def network() -> MSA2Net:
    torch.manual_seed(0)
    built = networks.create("msa2net", in_channels=1, out_channels=3)
    assert isinstance(built, MSA2Net)
    randomise(built, seed=1)
    return built


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 28_760_849),
        ({"out_channels": 2}, 28_760_394),
        ({"out_channels": 4}, 28_760_524),
        ({"candidates": (1, 3, 5, 7)}, 28_773_833),
        ({"candidates": (3, 5, 7, 9)}, 29_234_633),
        ({"auxiliary": False}, 26_418_437),
        ({"variant": "small"}, 41_083_601),
        ({"dense": True}, 199_571_729),
        ({"dense": True, "candidates": (1, 3, 5, 7)}, 201_667_913),
        ({"dense": True, "candidates": (3, 5, 7, 9)}, 368_784_713),
    ],
    ids=str,
)
def test_parameters_are_as_specified(options: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        network = networks.create("msa2net", **{"in_channels": 1, "out_channels": 9, **options})
    assert count_parameters(network) == count


@pytest.mark.parametrize(("channels", "count"), [(64, 11_779), (128, 35_843), (256, 120_835), (512, 438_275)])
def test_adaptive_convolution_parameters(channels: int, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(SelfAdaptiveConv2d(channels)) == count


def mixed_one_by_one(convolution: SelfAdaptiveConv2d, x: Tensor) -> Tensor:
    """The sum over candidates of share times convolution, which aggregating the kernels must equal."""
    mean, deviation = x.mean((2, 3)), ((x - x.mean((2, 3), keepdim=True)) ** 2).mean((2, 3)).add(1e-6).sqrt()
    hidden = torch.relu(
        functional.linear(
            torch.cat((mean, deviation), 1), convolution.gate[0].weight, convolution.gate[0].bias
        )
    )
    shares = functional.linear(hidden, convolution.gate[2].weight, convolution.gate[2].bias).softmax(1)
    groups = 1 if convolution.dense else x.shape[1]
    total = sum(
        shares[:, n, None, None, None]
        * functional.conv2d(x, weight, convolution.biases[n], padding=weight.shape[-1] // 2, groups=groups)
        for n, weight in enumerate(convolution.weights)
    )
    assert isinstance(total, Tensor)
    pointwise = convolution.pointwise
    return total if convolution.dense else functional.conv2d(total, pointwise.weight, pointwise.bias)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("candidates", [(3, 5, 7), (1, 9)])
def test_aggregated_kernels_equal_the_mixture_of_responses(dense: bool, candidates: tuple[int, ...]) -> None:
    convolution = randomise(SelfAdaptiveConv2d(6, candidates, dense))
    x = random_image(3, 6, 12, 14)
    with torch.no_grad():
        assert_close(convolution(x), mixed_one_by_one(convolution, x), 1e-5)
        shares = convolution.shares(x)
    assert_close(shares.sum(1), torch.ones(3), 1e-6)
    assert float((shares[0] - shares[1]).abs().max()) > 1e-4


def test_training_starts_with_equal_shares_and_survives_a_constant_slice() -> None:
    convolution = SelfAdaptiveConv2d(4)
    x = torch.zeros(2, 4, 8, 8, requires_grad=True)
    assert_close(convolution.shares(x), torch.full((2, 3), 1 / 3), 1e-6)
    convolution(x).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("stripe", ["vertical", "horizontal", "whole"])
def test_stripe_attention_is_attention_inside_each_stripe(stripe: str) -> None:
    attention = randomise(StripeAttention(4, 2, stripe, 2))
    q, k, v = (random_image(2, 6, 8, 4, seed=seed) for seed in range(3))
    with torch.no_grad():
        out = attention(q, k, v)
    if stripe == "vertical":
        regions = [(slice(0, 6), slice(n, n + 2)) for n in range(0, 8, 2)]
    elif stripe == "horizontal":
        regions = [(slice(n, n + 2), slice(0, 8)) for n in range(0, 6, 2)]
    else:
        regions = [(slice(0, 6), slice(0, 8))]
    for rows, columns in regions:
        part_q, part_k, part_v = (x[:, rows, columns] for x in (q, k, v))
        height, width = part_q.shape[1:3]
        position = functional.conv2d(
            part_v.movedim(3, 1), attention.get_v.weight, attention.get_v.bias, padding=1, groups=4
        )
        wanted = position.movedim(1, 3).clone()
        for head in (slice(0, 2), slice(2, 4)):
            a, b, c = (x[..., head].reshape(2, height * width, 2) for x in (part_q, part_k, part_v))
            weights = (torch.einsum("bnc,bmc->bnm", a, b) / 2**0.5).softmax(2)
            wanted[..., head] += torch.einsum("bnm,bmc->bnc", weights, c).view(2, height, width, 2)
        assert_close(out[:, rows, columns], wanted, 1e-5)


@pytest.fixture(scope="module")
def volume_and_logits(network: MSA2Net) -> tuple[Tensor, Tensor]:
    """Two slices that need resizing, and what the second implementation makes of them."""
    volume = random_image(1, 1, 2, 60, 100)
    with torch.no_grad():
        return volume, reference.msa2net(network.state_dict(), volume)


def test_agrees_with_a_second_implementation(network: MSA2Net, volume_and_logits: tuple[Tensor, Tensor]) -> None:
    volume, wanted = volume_and_logits
    with torch.no_grad():
        assert_close(network(volume), wanted, 1e-4 * float(wanted.std()))


def swapped_stripes(network: MSA2Net) -> None:
    for block in network.encoder.stage2:
        first, second = block.attns
        first.stripe, second.stripe = second.stripe, first.stripe


def shares_over_the_batch(network: MSA2Net) -> None:
    for convolution in network.adaptive_convolutions().values():
        convolution.gate[3] = nn.Softmax(dim=0)


def branch_on_the_image_map(network: MSA2Net) -> None:
    """The transformer takes its own map and not the fused one."""
    own: list[Tensor] = []
    stage = network.encoder.stage

    def alone(number: int, x: Tensor) -> Tensor:
        own.append(stage(number, x if number == 1 else own[-1]))
        return own[-1]

    network.encoder.stage = alone


def nearest_doubling(network: MSA2Net) -> None:
    for rise in network.rise:
        rise.register_forward_pre_hook(
            lambda _, inputs: (functional.interpolate(inputs[0][:, :, ::2, ::2], scale_factor=2.0),)
        )


@pytest.mark.parametrize(
    "mistake", [swapped_stripes, shares_over_the_batch, branch_on_the_image_map, nearest_doubling]
)
def test_planted_mistakes_are_caught(
    mistake: Callable[[MSA2Net], None], network: MSA2Net, volume_and_logits: tuple[Tensor, Tensor]
) -> None:
    volume, wanted = volume_and_logits
    spoilt = copy.deepcopy(network)
    mistake(spoilt)
    with torch.no_grad():
        error = (spoilt(volume) - wanted).abs().max()
    assert float(error) > 1e-3 * float(wanted.std())


def test_inference_gives_it_whole_slices_and_plans_their_memory(network: MSA2Net) -> None:
    manifest = SimpleNamespace(window=(8, 64, 64), overlap=0.5)
    for slices in (3, 20):
        layout = layout_for(Grid((slices, 300, 511), np.eye(4)), manifest, network)
        assert layout.size == (min(8, slices), 300, 511)
        assert all(window.lower[1:] == (0, 0) for window in layout.windows())
    # Slices are resized, so the work does not grow with their size.
    assert network_memory(network, 1, (8, 512, 512)) < 2 * network_memory(network, 1, (8, 224, 224)) < 8 * 2**30


def test_slices_do_not_mix_and_come_back_in_their_size(network: MSA2Net) -> None:
    volume = random_image(1, 1, 3, 50, 70)
    with torch.no_grad():
        whole = network(volume)
        alone = network(volume[:, :, 1:2])
    assert whole.shape == (1, 3, 3, 50, 70)
    spread = float(whole.std())  # random weights let the logits grow
    assert_close(whole[:, :, 1:2], alone, 1e-4 * spread)
    assert float((whole[:, :, 0] - whole[:, :, 1]).abs().max()) > 1e-2 * spread


def test_a_grey_slice_is_three_equal_channels(network: MSA2Net) -> None:
    colour = networks.create("msa2net", in_channels=3, out_channels=3).eval()
    networks.load_official(colour, networks.export_official(network))
    volume = random_image(1, 1, 1, 224, 224)
    with torch.no_grad():
        assert torch.equal(colour(volume.expand(-1, 3, -1, -1, -1)), network(volume))


def test_every_adaptive_convolution_is_named(network: MSA2Net) -> None:
    found = network.adaptive_convolutions()
    assert len(found) == 24
    assert {"auxiliary.0.adaptive", "bridge.3.units.1.adaptive", "decoder.0.units.2.adaptive"} <= set(found)


def test_encoder_weights_load_in_the_published_layout(network: MSA2Net) -> None:
    weights = {key: tensor + 1 for key, tensor in network.encoder.state_dict().items()}
    target = networks.create("msa2net", in_channels=1, out_channels=3)
    target.load_encoder({"state_dict_ema": {**weights, "head.weight": torch.zeros(1000, 512)}})
    assert all(torch.equal(target.encoder.state_dict()[key], weights[key]) for key in weights)
    assert weights["stage1_conv_embed.0.weight"].shape == (64, 3, 7, 7)
    assert {
        "stage1_conv_embed.2.bias",
        "stage3.20.attns.1.get_v.weight",
        "stage4.0.attns.0.get_v.bias",
    } <= set(weights)
    with pytest.raises(InputError, match="'small'"):
        networks.create("msa2net", in_channels=1, out_channels=3, variant="small").load_encoder(weights)


def test_the_auxiliary_branch_starts_small_and_alive() -> None:
    torch.manual_seed(0)
    stage = AuxiliaryStage(3, 8, (3, 5, 7), dense=False).train()
    out = stage(random_image(2, 3, 32, 32))
    assert 0 < float(out.detach().abs().max()) < 0.2
    out.sum().backward()
    assert float(stage.conv.weight.grad.abs().sum()) > 0


def test_training_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    network = networks.create("msa2net", in_channels=1, out_channels=3).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
    image = random_image(1, 1, 1, 224, 224)
    for _ in range(3):
        optimiser.zero_grad()
        network(image).square().mean().backward()
        optimiser.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_what_it_cannot_take_is_refused(network: MSA2Net) -> None:
    for options, sentence in (
        ({"in_channels": 2}, "Choose one of: 1, 3"),
        ({"in_channels": 1, "candidates": (3, 4)}, "odd"),
        ({"in_channels": 1, "slice_size": 200}, "multiple of 224"),
        ({"in_channels": 1, "variant": "base"}, "'tiny', 'small'"),
    ):
        with pytest.raises(InputError, match=sentence):
            networks.create("msa2net", out_channels=2, **options)
    with pytest.raises(InputError, match="multiple of 224"):
        network.segment_slices(random_image(1, 1, 100, 100))
