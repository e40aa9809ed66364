"""DLKNETR: counts and names as published, any size, and every parameter that has a use is trained."""

from __future__ import annotations

import networks_dnet_reference as dnet
import pytest
import torch
import torch.nn.functional as functional
from networks_support import assert_close, published_keys, random_image, randomise
from torch import Tensor

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


def reference(w: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The network a second time, in double precision: logits, finest first."""

    def residual(name: str, x: Tensor) -> Tensor:
        instance = functional.instance_norm
        r = functional.leaky_relu(instance(dnet.convolve(w, f"{name}.conv1.conv", x, padding=1)), 0.01)
        r = instance(dnet.convolve(w, f"{name}.conv2.conv", r, padding=1))
        has_shortcut = f"{name}.conv3.conv.weight" in w
        s = instance(dnet.convolve(w, f"{name}.conv3.conv", x)) if has_shortcut else x
        return functional.leaky_relu(r + s, 0.01)

    x = image.double()
    skips = [residual("decoder.encoder1.layer", x)]
    for level in range(5):
        name = "decoder.DLKEncoder"
        how = {"stride": 2, "padding": 1 if level else 3}
        x = dnet.layer_norm(
            w, f"{name}.norm_layers.{level}", dnet.convolve(w, f"{name}.downsample_layers.{level}", x, **how)
        )
        if level < 4:
            for number in range(DEPTHS[level]):
                x = dnet.block(w, f"{name}.stages.{level}.{number}", x, per_kernel=False)
            x = dnet.layer_norm(w, f"{name}.norm_layers.{level}", x)
            skips.append(residual(f"decoder.encoder{level + 2}.layer", x))
    logits = []
    for number in (5, 4, 3, 2, 1):
        skip = skips.pop()
        weight = w[f"decoder.decoder{number}.transp_conv.conv.weight"].double()
        up = functional.conv_transpose3d(x, weight, stride=2)
        k, j, i = skip.shape[2:]
        x = residual(f"decoder.decoder{number}.conv_block", torch.cat((up[:, :, :k, :j, :i], skip), 1))
        head = f"decoder.out_{number - 2}" if number > 1 else "decoder.out.conv.conv"
        logits.append(dnet.convolve(w, head, x))
    return logits[::-1]


@pytest.mark.parametrize("size", [(32, 48, 32), (17, 33, 40)])
def test_agrees_with_a_second_implementation(size: tuple[int, int, int]) -> None:
    network = randomise(small(deep_supervision=True))
    image = random_image(1, 2, *size)
    with torch.no_grad():
        logits = network(image)
    for ours, theirs in zip(logits, reference(network.state_dict(), image), strict=True):
        assert_close(ours, theirs)


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
    with pytest.raises(InputError, match=r"16×32×32.*at least 17"):
        source(random_image(1, 2, 16, 32, 32))
    with pytest.raises(InputError, match="Give 5"):
        small(depths=(1, 1, 1, 1))
