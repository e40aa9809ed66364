"""A checkpoint tells by its tensors which network it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks_support import published_keys

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.recognition import recognise

BUILDS: list[tuple[str, dict[str, Any]]] = [
    ("dnet", {"in_channels": 1, "out_channels": 16}),
    (
        "dnet",
        {"in_channels": 2, "out_channels": 3, "depths": (1, 3, 1, 2, 1), "feature_sizes": (4, 6, 8, 10, 12)},
    ),
    (
        "dnet",
        {"in_channels": 1, "out_channels": 2, "feature_sizes": (4, 6, 8, 8, 8), "salience_norm": "separate"},
    ),
    ("dlknetr", {"in_channels": 1, "out_channels": 5, "deep_supervision": True}),
    ("dlknetr", {"in_channels": 3, "out_channels": 2, "feature_sizes": (4, 6, 8, 10, 12)}),
    (
        "rep3d",
        {"in_channels": 2, "out_channels": 4, "kernel_size": 7, "depths": (1, 2, 1, 3), "hidden_size": 20},
    ),
    ("rep3d", {"in_channels": 1, "out_channels": 4, "kernel_size": 5, "lrbm": "per_channel", "deploy": True}),
    ("rep3d", {"in_channels": 1, "out_channels": 4, "kernel_size": 5, "lrbm": "fixed", "learn_beta": True}),
    ("dalight3d", {"in_channels": 4, "out_channels": 4}),
    (
        "dalight3d",
        {"in_channels": 1, "out_channels": 2, "base_filters": 8, "num_stages": 6, "max_channels": 32},
    ),
    ("dalight3d", {"in_channels": 1, "out_channels": 2, "icn": False, "csa": False, "ssfb": False}),
    (
        "dalight3d",
        {"in_channels": 1, "out_channels": 2, "separable": False, "evidential": True, "ssfb_rank": 3},
    ),
    ("lka_unet", {"in_channels": 1, "out_channels": 7, "variant": "full"}),
    ("lka_unet", {"in_channels": 1, "out_channels": 7, "variant": "base"}),
    ("lka_unet", {"in_channels": 1, "out_channels": 7, "attention": {3: (15, 3)}}),
    ("msa2net", {"in_channels": 1, "out_channels": 9, "candidates": (1, 5)}),
    ("msa2net", {"in_channels": 1, "out_channels": 9, "variant": "small", "auxiliary": False}),
]


@pytest.mark.parametrize(("name", "options"), BUILDS, ids=str)
def test_name_and_options_are_recognised(name: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        tensors = networks.create(name, **options).state_dict()
    if "lrbm_baked" in tensors:
        tensors["lrbm_baked"] = torch.tensor(options.get("deploy", False))
    found = recognise({"network_weights": {f"module.{key}": value for key, value in tensors.items()}})
    assert found.name == name
    with torch.device("meta"):
        again = networks.create(found.name, **found.options).state_dict()
    assert {key: value.shape for key, value in again.items()} == {
        key: value.shape for key, value in tensors.items()
    }
    for option in ("deploy", "variant"):
        if option in options:
            assert found.options[option] == options[option]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("dnet_full_in1_out16", "dnet"),
        ("dlknetr_full_in1_out16_ds", "dlknetr"),
        ("rep3d_full_in1_out16", "rep3d"),
        ("dalight3d_full_in4_out4", "dalight3d"),
    ],
)
def test_published_layouts_are_recognised(file: str, name: str) -> None:
    found = recognise({key: torch.empty(shape, device="meta") for key, shape in published_keys(file)})
    assert found.name == name
    if name == "rep3d":
        assert found.options["deploy"] is True
        assert "as stored" in found.assumed[0]


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(InputError, match="2024 form"):
        recognise(
            {
                key: torch.empty(shape, device="meta")
                for key, shape in published_keys("dnet_2024v1_full_in1_out16")
            }
        )
    with pytest.raises(InputError, match="conv.weight.*Say which network"):
        recognise({"conv.weight": torch.zeros(1)})
    with pytest.raises(InputError, match="looks like rep3d, but the tensor .*encoder1"):
        recognise({"rep3d.stages.0.0.dwconv.weight": torch.zeros(4, 1, 7, 7, 7)})
