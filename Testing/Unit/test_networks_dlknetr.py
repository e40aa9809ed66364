"""DLKNETR: counts and names as published, any size, and every parameter that has a use is trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks_dlknetr_reference import dlknetr as reference
from networks_support import TOLERANCE, assert_close, published_keys, random_image, randomise
from torch import nn

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.counting import count_parameters
from LKSegmentLib.networks.dlknetr import DLKNETR

DEPTHS = (1, 2, 1, 1, 1)


def small(**options: object) -> DLKNETR:
    arguments = {"in_channels": 2, "out_channels": 3, "depths": DEPTHS, "feature_sizes": (4, 6, 8, 10, 12)}
    network = networks.create("dlknetr", **{**arguments, **options})
    assert isinstance(network, DLKNETR)
    return network


@pytest.mark.parametrize(("deep_supervision", "count"), [(True, 45_887_088), (False, 45_863_200)])
def test_parameters_are_exact(deep_supervision: bool, count: int) -> None:
    with torch.device("meta"):
        network = networks.create(
            "dlknetr", in_channels=1, out_channels=16, deep_supervision=deep_supervision
        )
    assert count_parameters(network) == count


def test_names_shapes_and_order_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = networks.create("dlknetr", in_channels=1, out_channels=16, deep_supervision=True)
    ours = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    assert ours == published_keys("dlknetr_full_in1_out16_ds")


@pytest.mark.parametrize("size", [(32, 48, 32), (17, 33, 40)])
def test_agrees_with_a_second_implementation(size: tuple[int, int, int]) -> None:
    network = randomise(small(deep_supervision=True))
    image = random_image(1, 2, *size)
    with torch.no_grad():
        logits = network(image)
    for ours, theirs in zip(logits, reference(network.state_dict(), image, DEPTHS), strict=True):
        assert_close(ours, theirs)


def without_second_norm(network: DLKNETR) -> None:
    """The norm before the stage only."""
    encoder = network.decoder.DLKEncoder
    encoder.forward = lambda image: single_norms(encoder, image)


def single_norms(encoder: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    features, x = [], image
    for level, (down, norm) in enumerate(zip(encoder.downsample_layers, encoder.norm_layers, strict=True)):
        x = norm(down(x))
        x = encoder.stages[level](x) if level < 4 else x
        features.append(x)
    return features


def swapped_skip(network: DLKNETR) -> None:
    network.decoder.decoder4.conv_block.register_forward_pre_hook(
        lambda _, inputs: (inputs[0].roll(inputs[0].shape[1] // 2, 1),)
    )


def resized_instead_of_cut(network: DLKNETR) -> None:
    """Maps of odd sizes shifted by a voxel instead of cut at their end."""
    network.decoder.decoder1.transp_conv.register_forward_hook(lambda _, inputs, out: out.roll(1, 2))


@pytest.mark.parametrize("mistake", [without_second_norm, swapped_skip, resized_instead_of_cut])
def test_planted_mistakes_are_caught(mistake: Callable[[DLKNETR], None]) -> None:
    network = randomise(small())
    image = random_image(1, 2, 17, 33, 18)
    mistake(network)
    with torch.no_grad():
        error = (network(image) - reference(network.state_dict(), image, DEPTHS)[0]).abs().max()
    assert float(error) > TOLERANCE


def test_training_reaches_every_parameter_that_has_a_use() -> None:
    torch.manual_seed(0)
    network = small(deep_supervision=True).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
    image = random_image(2, 2, 32, 32, 32)
    for _ in range(3):
        optimiser.zero_grad()
        loss = sum(level.square().mean() for level in network(image))
        loss.backward()
        optimiser.step()
    for name, parameter in network.named_parameters():
        if name.startswith("decoder.out_4."):
            assert parameter.grad is None  # published and never used
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name


def test_round_trip_and_refusals() -> None:
    source = randomise(small(), seed=2)
    exported = networks.export_official(source)
    again = networks.export_official(networks.load_official(small(), exported))
    assert list(again) == list(exported)
    assert all(torch.equal(again[key], exported[key]) for key in exported)
    with pytest.raises(InputError, match=r"16×9×16.*at least 17"):
        source(random_image(1, 2, 16, 9, 16))
    with torch.no_grad():  # two voxels at 1/16 will do, whichever way they lie
        assert source(random_image(1, 2, 1, 17, 5)).shape == (1, 3, 1, 17, 5)
    with pytest.raises(InputError, match="Give 5"):
        small(depths=(1, 1, 1, 1))
