"""The LK-attention U-Net is what the paper's numbers force it to be, and what ours says beyond them."""

from __future__ import annotations

import pytest
import torch
from networks_lka_unet_reference import lka_unet as reference
from networks_support import TOLERANCE, assert_close, random_image, randomise
from torch import nn

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.blocks import LKAttention
from LKSegmentLib.networks.counting import count_macs, count_parameters
from LKSegmentLib.networks.lka_unet import ATTENTION, LKAUNet

WIDTHS = (4, 8, 16, 24, 32, 32)


def small(**options: object) -> LKAUNet:
    arguments = {"in_channels": 2, "out_channels": 3, "feature_sizes": WIDTHS, **options}
    network = networks.create("lka_unet", **arguments)
    assert isinstance(network, LKAUNet)
    return network


@pytest.mark.parametrize(
    ("variant", "in_channels", "out_channels", "count"),
    [
        ("base", 1, 7, 100_990_972),
        ("mid", 1, 7, 101_067_644),
        ("full", 1, 7, 101_460_124),
        ("base", 4, 3, 100_991_628),
        ("mid", 4, 3, 101_068_300),
        ("full", 4, 3, 101_460_780),
    ],
)
def test_parameters_are_exact(variant: str, in_channels: int, out_channels: int, count: int) -> None:
    with torch.device("meta"):
        network = networks.create(
            "lka_unet", in_channels=in_channels, out_channels=out_channels, variant=variant
        )
    assert count_parameters(network) == count


@pytest.mark.parametrize(("variant", "gmacs"), [("base", 1134.9), ("mid", 1139.6), ("full", 1211.0)])
def test_multiply_accumulates_are_exact(variant: str, gmacs: float) -> None:
    with torch.device("meta"):
        network = networks.create(
            "lka_unet", in_channels=4, out_channels=3, variant=variant, deep_supervision=True
        )
    assert count_macs(network, 4, (160, 192, 128)) / 1e9 == pytest.approx(gmacs, abs=0.06)


@pytest.mark.parametrize(
    ("channels", "count"), [(32, 16_096), (64, 34_240), (128, 76_672), (256, 186_112), (512, 503_296)]
)
def test_attention_parameters_are_those_of_table_1(channels: int, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(LKAttention(channels, 21, 3)) == count


def test_each_variant_holds_the_tensors_of_the_base() -> None:
    shapes = {}
    for variant in ("base", "mid", "full"):
        with torch.device("meta"):
            network = networks.create("lka_unet", in_channels=1, out_channels=2, variant=variant)
        shapes[variant] = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert shapes["base"].items() <= shapes["mid"].items()
    assert shapes["base"].items() <= shapes["full"].items()
    assert {name for name in shapes["mid"] if name not in shapes["base"]} == {
        f"lk.2.{part}.{kind}" for part in ("dw", "dwd", "pw") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("variant", ["base", "mid", "full"])
def test_agrees_with_a_second_implementation(variant: str) -> None:
    network = randomise(small(variant=variant, deep_supervision=True))
    image = random_image(2, 2, 32, 64, 32)
    wanted = reference(network.state_dict(), image, ATTENTION[variant])
    with torch.no_grad():
        logits = network(image)
    assert [level.shape[2:] for level in logits] == [(32, 64, 32), (16, 32, 16), (8, 16, 8), (4, 8, 4)]
    for ours, theirs in zip(logits, wanted, strict=True):
        assert_close(ours, theirs)


def other_order(network: LKAUNet) -> None:
    network.lk["2"].order = "dw_dwd"


def raw_residual(network: LKAUNet) -> None:
    network.lk["2"].register_forward_hook(lambda _, inputs, out: out - inputs[0])


def swapped_concatenation(network: LKAUNet) -> None:
    network.dec[0].register_forward_pre_hook(lambda _, inputs: (inputs[0].roll(inputs[0].shape[1] // 2, 1),))


def one_group(network: LKAUNet) -> None:
    for norm in network.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.num_groups = 1


@pytest.mark.parametrize("mistake", [other_order, raw_residual, swapped_concatenation, one_group])
def test_planted_mistakes_are_caught(mistake: object) -> None:
    assert callable(mistake)
    network = randomise(small())
    image = random_image(1, 2, 32, 32, 32)
    mistake(network)
    with torch.no_grad():
        spoilt = network(image)
    wanted = reference(network.state_dict(), image, ATTENTION["mid"])[0]
    assert float((spoilt - wanted).abs().max()) > TOLERANCE


def test_the_orders_share_weights_and_agree_away_from_the_border() -> None:
    first = randomise(LKAttention(4, 21, 3))
    second = LKAttention(4, 21, 3, order="dw_dwd").eval()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        for attention in (first, second):
            attention.dwd.bias.zero_()
            attention.dw.bias.zero_()
        features = random_image(1, 4, 32, 32, 32)
        difference = (first(features) - second(features)).abs()
    assert float(difference[..., 11:-11, 11:-11, 11:-11].max()) <= 1e-5
    assert float(difference.max()) > 1e-2


def test_deep_supervision_adds_outputs_and_changes_none() -> None:
    network = randomise(small())
    image = random_image(1, 2, 32, 32, 64)
    with torch.no_grad():
        alone = network(image)
        network.deep_supervision = True
        assert torch.equal(alone, network(image)[0])


def test_kernels_can_be_given_level_by_level() -> None:
    network = small(variant="base", attention={"1": [9, 3], 4: (6, 2)})
    assert network.attention == {1: (9, 3), 4: (6, 2)}
    assert network.lk["1"].dwd.kernel_size == (3, 3, 3)
    with pytest.raises(InputError, match="levels 0 to 4"):
        small(attention={5: (21, 3)})
    with pytest.raises(InputError, match="odd multiple"):
        small(attention={2: (20, 3)})
    with pytest.raises(InputError, match="level 'deep'.*levels 0 to 4"):
        small(attention={"deep": (21, 3)})
    with pytest.raises(InputError, match="level: .kernel, dilation"):
        small(attention=(21, 3))


@pytest.mark.parametrize("variant", ["base", "mid", "full"])
def test_training_reaches_every_parameter(variant: str) -> None:
    torch.manual_seed(0)
    network = small(variant=variant, deep_supervision=True).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
    image = random_image(2, 2, 32, 32, 32)
    for _ in range(3):
        optimiser.zero_grad()
        loss = sum(level.square().mean() for level in network(image))
        loss.backward()
        optimiser.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_sizes_it_cannot_take_are_refused_with_the_multiple() -> None:
    network = small().eval()
    with pytest.raises(InputError, match=r"48×32×32.*multiples of 32.*64×32×32"):
        network(random_image(1, 2, 48, 32, 32))
    with pytest.raises(InputError, match="4 axes"):
        network(random_image(2, 32, 32, 32))


def test_groups_of_one_channel_need_two_voxels_at_the_deepest_level() -> None:
    network = small(feature_sizes=(2, 4, 8, 8, 8, 8))
    assert network.minimum_size == 64
    with pytest.raises(InputError, match="at least 64"):
        network(random_image(1, 2, 32, 64, 64))


def test_receptive_fields_are_those_of_the_gradient() -> None:
    """With positive weights and no norm the gradient of a voxel is non-zero exactly where the voxel sees."""
    network = LKAUNet(1, 1, "mid", feature_sizes=(1, 1, 1, 1), attention={1: (9, 3)}, norm_groups=1).double()
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, (nn.GroupNorm, nn.LeakyReLU, nn.Sigmoid)):
                setattr(parent, name, nn.Identity())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)
    image = torch.ones(1, 1, 256, 16, 16, dtype=torch.double, requires_grad=True)
    logits = network(image)
    widest = 0
    for voxel in range(124, 132):
        (gradient,) = torch.autograd.grad(logits[0, 0, voxel, 8, 8], image, retain_graph=True)
        seen = gradient[0, 0].abs().sum((1, 2)).nonzero().flatten()
        widest = max(widest, int(seen[-1] - seen[0]) + 1)
    assert network.receptive_fields()[-1].voxels == widest
