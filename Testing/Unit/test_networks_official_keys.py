"""Published weights go in strictly, whatever they are wrapped in, and come out bit for bit."""

from __future__ import annotations

import pytest
import torch
from networks_support import published_keys, random_image, randomise
from torch import Tensor, nn

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.official_keys import unwrap

SMALL = {
    "dnet": {
        "in_channels": 1,
        "out_channels": 2,
        "depths": (1, 1, 1, 1, 1),
        "feature_sizes": (2, 4, 6, 8, 10),
    },
    "lka_unet": {"in_channels": 1, "out_channels": 2, "feature_sizes": (2, 4, 4, 4, 8, 16)},
}


def small(name: str) -> nn.Module:
    return networks.create(name, **SMALL[name])


def wrapped_by_nnunet(tensors: dict[str, Tensor]) -> dict[str, object]:
    return {
        "network_weights": {f"_orig_mod.module.{key}": value for key, value in tensors.items()},
        "init_args": {},
        "trainer_name": "nnUNetTrainer",
    }


@pytest.mark.parametrize("name", SMALL)
def test_the_round_trip_is_bit_exact(name: str) -> None:
    source = randomise(small(name), seed=3)
    exported = networks.export_official(source)
    target = networks.load_official(small(name), exported)
    again = networks.export_official(target)
    assert list(again) == list(exported)
    assert all(torch.equal(again[key], exported[key]) for key in exported)
    image = random_image(1, 1, 32, 32, 32)
    with torch.no_grad():
        assert torch.equal(source(image), target.eval()(image))


def test_exported_tensors_are_copies() -> None:
    network = small("dnet")
    exported = networks.export_official(network)
    exported["decoder.output_layer.bias"].add_(1)
    assert not torch.equal(exported["decoder.output_layer.bias"], network.decoder.output_layer.bias)


@pytest.mark.parametrize(
    "wrap",
    [
        wrapped_by_nnunet,
        lambda tensors: {f"module._orig_mod.{key}": value for key, value in tensors.items()},
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {key: value.numpy() for key, value in tensors.items()},
    ],
    ids=["nnU-Net v2", "compiled and parallel", "trainer", "numpy"],
)
def test_wrappers_are_taken_off(wrap: object) -> None:
    assert callable(wrap)
    exported = networks.export_official(randomise(small("dnet"), seed=4))
    target = networks.load_official(small("dnet"), wrap(exported))
    assert all(torch.equal(target.state_dict()[key], exported[key]) for key in exported)


def test_weights_that_do_not_fit_are_refused_and_nothing_is_changed() -> None:
    network = small("dnet")
    before = networks.export_official(network)
    good = networks.export_official(randomise(small("dnet"), seed=5))
    name = "decoder.output_layer.weight"
    for bad, sentence in (
        ({key: value for key, value in good.items() if key != name}, f"missing: {name}"),
        ({**good, "decoder.extra": torch.zeros(1)}, "not in the network: decoder.extra"),
        ({**good, name: torch.zeros(3, 2, 1, 1, 1)}, "3×2×1×1×1 instead of 2×2×1×1×1"),
    ):
        with pytest.raises(InputError, match=sentence):
            networks.load_official(network, bad)
    after = networks.export_official(network)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_what_is_no_state_dict_is_refused() -> None:
    for wrong, sentence in (
        ({}, "no state dict"),
        ({"epoch": 3}, "'epoch' is a int, not a tensor"),
        ({"module.a": torch.zeros(1), "a": torch.zeros(1)}, "same name"),
    ):
        with pytest.raises(InputError, match=sentence):
            unwrap(wrong)


def test_the_published_layout_of_full_size_loads() -> None:
    names = published_keys("dnet_full_in1_out16")
    tensors = {
        key: torch.zeros(shape, dtype=torch.int64 if key.endswith("tracked") else torch.float32)
        for key, shape in names
    }
    network = networks.load_official(networks.create("dnet", in_channels=1, out_channels=16), tensors)
    assert all(not tensor.any() for tensor in network.state_dict().values())
