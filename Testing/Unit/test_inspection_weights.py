"""What the weights alone tell: kernels that are what the layers do, in millimetres, and words for collapsed ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inspection_support import tiny  # noqa: E402
from networks_support import randomise  # noqa: E402

from LKSegmentLib import networks  # noqa: E402
from LKSegmentLib.errors import InputError  # noqa: E402
from LKSegmentLib.inspection.kernel_pictures import network_tables_and_maps, picture_names  # noqa: E402
from LKSegmentLib.inspection.large_kernels import large_kernels  # noqa: E402

SPACING = (1.5, 1.5, 2.0)


def rep3d(**options: Any) -> Any:
    return tiny("rep3d", **options)


@pytest.mark.parametrize(
    ("name", "kernel", "first", "second"),
    [
        ("dnet", "far 23³ kernel, encoder 1/2 block 0", "att_conv1", "att_conv2"),
        ("lka_unet", "23³ kernel, LK attention, level 0", "dwd", "dw"),
    ],
)
def test_a_composed_kernel_answers_an_impulse_as_its_two_convolutions_do(
    name: str, kernel: str, first: str, second: str
) -> None:
    network = tiny(name)
    (found,) = [one for one in large_kernels(network) if one.name == kernel]
    assert found.edge == 23
    owner = network.get_submodule(found.layer.split(", ")[0].rsplit(".", 1)[0])
    impulse = torch.zeros(1, found.channels, 23, 23, 23)
    impulse[..., 11, 11, 11] = 1
    with torch.no_grad():
        for part in (first, second):
            getattr(owner, part).bias.zero_()
        answer = getattr(owner, second)(getattr(owner, first)(impulse))[0]
    # A convolution layer correlates: an impulse comes out as the kernel turned round.
    np.testing.assert_allclose(answer.flip(1, 2, 3).numpy(), found.weights().numpy(), atol=1e-6)


def test_pictures_of_kernels_lie_around_ras_zero_in_millimetres() -> None:
    names = [f"{what}, 5³ kernel, encoder 1/4 block 0" for what in ("mean |weight|", "mean weight", "prior", "mask")]
    single = "weight, 5³ kernel, encoder 1/4 block 0 #3"
    network = rep3d()
    maps, tables = network_tables_and_maps(network, SPACING, [*names, single])
    assert [found.name for found in maps] == [*names, single] and not tables
    block = network.rep3d.stages[1][0]
    weights = (block.dwconv.weight * block.mask())[:, 0]
    wanted = [weights.abs().mean(0), weights.mean(0), block.prior(), block.mask()[0, 0], weights[3]]
    for found, expected in zip(maps, wanted, strict=True):
        np.testing.assert_allclose(found.volume.array, expected.detach().numpy(), atol=1e-6)
        assert found.volume.spacing == (6.0, 6.0, 8.0), "stride 4"
        np.testing.assert_allclose(found.volume.grid.ras_of((2, 2, 2)), 0, atol=1e-9)
        passport = json.loads(json.dumps(found.passport))
        assert passport["space"] == "kernel" and "no place in the image" in passport["sentence"]
        assert passport["box mm (R, A, S)"] == [30.0, 30.0, 40.0] and passport["kind"].startswith("kernel")


def test_radial_profiles_and_shares_of_energy() -> None:
    network = rep3d(lrbm="none")
    block = network.rep3d.stages[0][0]
    with torch.no_grad():
        block.dwconv.weight.zero_()
        block.dwconv.weight[:, 0, 2, 2, 2] = 3.0  # energy 9 at the centre
        block.dwconv.weight[:, 0, 2, 2, 0] = 4.0  # 16 at a distance of 2 taps
    name = "radial profile, 5³ kernel, encoder 1/2 block 0"
    _, (profile, overview) = network_tables_and_maps(network, (1.5, 1.5, 1.5), [name, "large kernels"])
    assert profile.column("radius (taps)") == [0.0, 1.0, 2.0, 3.0] and profile.x == "radius (mm)"
    assert profile.column("radius (mm)") == [0.0, 3.0, 6.0, 9.0]
    assert profile.column("share of the energy within") == pytest.approx([0.36, 0.36, 1.0, 1.0])
    size = profile.column("mean |weight|")
    assert size[0] == pytest.approx(3.0) and size[1] == 0 and size[2] > 0
    row = dict(zip(overview.columns, overview.rows[0], strict=True))
    assert row["energy within 3³"] == pytest.approx(0.36) and row["energy within 5³"] == 1
    assert row["box S (mm)"] == 15.0 and row["to be said"] == "no mask"
    _, (uneven,) = network_tables_and_maps(network, SPACING, [name])
    assert uneven.column("radius along S (mm)")[1] == 4.0 and uneven.column("radius along R (mm)")[1] == 3.0


def said(network: Any) -> str:
    _, (overview,) = network_tables_and_maps(network, SPACING, ["large kernels"])
    return str(overview.column("to be said")[0])


def test_collapsed_masks_and_kernels_are_said_in_words() -> None:
    network = rep3d()
    block = network.rep3d.stages[0][0]
    assert "turns the sign of" in said(network)
    with torch.no_grad():
        block.norm_w2.weight.zero_()
        block.norm_w2.bias.fill_(0.25)
        assert "learned part of the mask has collapsed to one number, 0.25" in said(network)
        block.norm_w2.bias.zero_()
        assert said(network) == "the mask is the prior itself: nothing was learned, or it is fixed"
        block.prior = lambda: torch.full((5, 5, 5), 0.5)
        assert "collapsed mask: the same number, 0.5, at every tap" in said(network)
        del block.prior
        block.dwconv.weight[:, :, 0] = block.dwconv.weight[:, :, 1] = 0
        block.dwconv.weight[:, :, 3:] = block.dwconv.weight[:, :, :, :2] = block.dwconv.weight[:, :, :, 3:] = 0
        block.dwconv.weight[..., :2] = block.dwconv.weight[..., 3:] = 0
        assert "collapsed kernel: all of its energy is at the centre tap" in said(network)
        block.dwconv.weight.zero_()
        assert "all weights are zero" in said(network)
    assert said(rep3d().bake()).startswith("baked: the mask is inside the weights")


def test_norms_by_identifier_say_when_an_identifier_changes_nothing() -> None:
    options = {"base_filters": 8, "bottleneck_channels": 16, "max_channels": 16, "ssfb_rank": 3}
    network = networks.create("dalight3d", in_channels=1, out_channels=2, **options)
    _, (table,) = network_tables_and_maps(network, SPACING)
    assert len(table.rows) == 14 * 9 and "never trained" in table.passport["in words"]
    assert "choosing one changes nothing" in table.passport["in words"]
    with torch.no_grad():
        network.encoder.stages[0].norm1.scanner_gamma.weight[5] = 1.5
    _, (table,) = network_tables_and_maps(network, SPACING, ["identifier norms"])
    assert "changes nothing" not in table.passport["in words"]
    (row,) = [row for row in table.rows if row[:2] == ("encoder.stages.0.norm1", "5")]
    assert dict(zip(table.columns, row, strict=True))["mean scale"] == 1.5
    assert dict(zip(table.columns, row, strict=True))["scale off none"] == 0.5


def test_candidate_kernels_are_told_with_their_sizes() -> None:
    network = networks.create("msa2net", in_channels=1, out_channels=2)
    _, (table,) = network_tables_and_maps(network, SPACING)
    assert len(table.rows) == 24 * 3 and "every gate is at its start" in table.passport["in words"]
    weight = network.bridge[0].units[0].adaptive.weights[1].detach()
    (row,) = [row for row in table.rows if row[:2] == ("bridge.0.units.0.adaptive", 5)]
    assert row[2] == pytest.approx(float(weight.norm()), rel=1e-5)


def test_names_are_listed_and_others_refused() -> None:
    network = randomise(networks.create("lk_click"))
    names = picture_names(network)
    assert names[0] == "large kernels" and "weight, 23³ kernel, LK attention #0 to #63" in names
    with pytest.raises(InputError, match="no picture 'heat'.*large kernels; mean"):
        network_tables_and_maps(network, SPACING, ["heat"])
    with pytest.raises(InputError, match="there is no channel 64"):
        network_tables_and_maps(network, SPACING, ["weight, 23³ kernel, LK attention #64"])
    with pytest.raises(InputError, match="has 64 channels: choose one, weight, 23³ kernel, LK attention #0 to #63"):
        network_tables_and_maps(network, SPACING, ["weight, 23³ kernel, LK attention"])
    with pytest.raises(InputError, match="three lengths in mm"):
        network_tables_and_maps(network, (1.5, 0, 1), None)
    assert network_tables_and_maps(torch.nn.Conv3d(1, 1, 3), SPACING) == ([], [])
    with pytest.raises(InputError, match="no large kernels"):
        network_tables_and_maps(torch.nn.Conv3d(1, 1, 3), SPACING, ["large kernels"])
