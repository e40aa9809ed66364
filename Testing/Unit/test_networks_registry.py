"""Networks by name: what is listed, what is refused, what is told."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError
from LKSegmentLib.networks import description, registry


def test_an_unknown_network_is_refused_with_the_names() -> None:
    for ask in (networks.create, networks.describe, networks.options, networks.facts):
        with pytest.raises(InputError, match="no network called 'unet'.*dnet.*lka_unet.*lk_click"):
            ask("unet")


def test_options_are_checked_against_the_constructor() -> None:
    with pytest.raises(InputError, match="dnet has no option 'dephts'. Its options are: .*depths"):
        networks.create("dnet", in_channels=1, out_channels=2, dephts=(1, 1, 1, 1, 1))
    with pytest.raises(InputError, match="'sum', 'per_kernel'"):
        networks.create("dnet", in_channels=1, out_channels=2, selection="mean")
    with pytest.raises(InputError, match="'mid', 'full', 'base'"):
        networks.create("lka_unet", in_channels=1, out_channels=2, variant="large")
    with pytest.raises(InputError, match="True, False"):
        networks.create("lka_unet", in_channels=1, out_channels=2, deep_supervision="no")
    with pytest.raises(InputError, match="in_channels=0"):
        networks.create("dnet", in_channels=0, out_channels=2)
    with pytest.raises(InputError, match="layer_scale='small' is not allowed. Use a number"):
        networks.create("dlknetr", in_channels=1, out_channels=2, layer_scale="small")
    with pytest.raises(InputError, match="whole number"):
        networks.create("lka_unet", in_channels=1, out_channels=2.0)


def test_every_option_is_told_with_its_default_and_choices() -> None:
    options = networks.options("dnet")
    assert options["selection"] == {"default": "sum", "required": False, "choices": ["sum", "per_kernel"]}
    assert options["depths"]["default"] == (2, 2, 2, 2, 2)
    assert networks.options("lka_unet")["variant"]["choices"] == ["mid", "full", "base"]


@pytest.mark.parametrize("name", networks.names())
def test_every_network_is_described_with_its_exact_counts(name: str) -> None:
    if missing := registry.missing_packages(name):
        pytest.skip(f"{name} needs {', '.join(missing)}")
    told, facts = networks.describe(name), networks.facts(name)
    assert (told["params"], told["macs"]) == description.measure(name)
    assert told["title"] and told["citation"] and told["licence"] and told["counting"]
    assert set(facts.reference) <= set(told["options"])


@pytest.mark.parametrize("name", networks.names())
def test_the_sizes_told_are_the_sizes_taken(name: str) -> None:
    if missing := registry.missing_packages(name):
        pytest.skip(f"{name} needs {', '.join(missing)}")
    facts = networks.facts(name)
    network: Any = description._on_meta(name).eval()
    assert (network.size_multiple, network.minimum_size) == (facts.size_multiple, facts.minimum_size)
    smallest, more = facts.minimum_size, facts.minimum_size + facts.size_multiple
    size = (smallest, smallest, smallest) if name == "monai_unetr" else (smallest, more, smallest)
    image = torch.empty(1, facts.reference["in_channels"], *size, device="meta")
    out = network(image)
    finest = out[0] if isinstance(out, list) else out
    assert finest.shape == (1, facts.reference["out_channels"], *size)
    too_small = smallest - 1
    if too_small:
        with pytest.raises(InputError, match=str(smallest)):
            network(torch.empty(1, facts.reference["in_channels"], *[too_small] * 3, device="meta"))


@pytest.mark.parametrize("name", networks.names())
def test_wrong_values_of_any_option_are_refused_in_a_sentence(name: str) -> None:
    if missing := registry.missing_packages(name):
        pytest.skip(f"{name} needs {', '.join(missing)}")
    for option, about in networks.options(name).items():
        for value in (-1, "x", {"a": 1}):
            with pytest.raises(InputError, match=option) as caught, torch.device("meta"):
                networks.create(name, **{option: value})
            assert "\n" not in str(caught.value)
            assert all(repr(choice) in str(caught.value) for choice in about["choices"] or ())


def test_what_a_baseline_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="monai_unetr needs more Python packages.*pip install monai einops"):
        networks.create("monai_unetr", in_channels=1, out_channels=2)
    assert networks.create("lka_unet", out_channels=2, feature_sizes=(4, 8, 8, 8, 8, 16)) is not None


def test_a_network_that_the_installed_monai_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = pytest.importorskip("monai.networks.nets")
    monkeypatch.delattr(nets, "MedNeXt")
    with pytest.raises(InputError, match=r"MONAI \d.* has no MedNeXt. Install a newer one"):
        networks.create("monai_mednext", in_channels=1, out_channels=2)


def test_the_table_has_a_row_for_each_network() -> None:
    rows = networks.table()
    assert tuple(row["name"] for row in rows) == networks.names()
    assert all(row["params"] > 0 and row["macs"] > 0 for row in rows)


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from LKSegmentLib import networks; networks.facts(networks.names()[0]);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
