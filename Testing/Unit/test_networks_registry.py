"""Networks by name: what is listed, what is refused, what is told."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError
from LKSegmentLib.networks import description
from LKSegmentLib.networks.counting import count_parameters


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
    with pytest.raises(InputError, match="whole number"):
        networks.create("lka_unet", in_channels=1, out_channels=2.0)


def test_every_option_is_told_with_its_default_and_choices() -> None:
    options = networks.options("dnet")
    assert options["selection"] == {"default": "sum", "required": False, "choices": ["sum", "per_kernel"]}
    assert options["depths"]["default"] == (2, 2, 2, 2, 2)
    assert networks.options("lka_unet")["variant"]["choices"] == ["mid", "full", "base"]


@pytest.mark.parametrize("name", networks.names())
def test_every_network_is_described_with_its_exact_counts(name: str) -> None:
    told = networks.describe(name)
    facts = networks.facts(name)
    with torch.device("meta"):
        assert told["params"] == count_parameters(networks.create(name, **facts.reference))
    if facts.parameters is not None:
        assert told["params"] == facts.parameters
    if facts.gmacs is not None:
        assert told["macs"] / 1e9 == pytest.approx(facts.gmacs, abs=5e-4)
    assert told["macs"] > 0
    assert told["title"] and told["citation"] and told["licence"] and told["counting"]
    assert told["minimum_size"] >= 1 and told["size_multiple"] >= 1
    assert set(facts.reference) <= set(told["options"])


def test_the_table_has_a_row_for_each_network() -> None:
    rows = description.table()
    assert tuple(row["name"] for row in rows) == networks.names()
    assert all(row["params"] > 0 and row["macs"] > 0 for row in rows)


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from LKSegmentLib import networks; networks.facts(networks.names()[0]);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
