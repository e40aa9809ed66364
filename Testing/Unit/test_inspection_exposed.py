"""What networks expose: names, shapes and ranges, and that recording changes nothing.

The recorded numbers are checked in `test_inspection_recomputed.py`, their places in `test_inspection_place.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as functional  # noqa: E402
from inspection_support import TINY, tiny  # noqa: E402
from networks_support import assert_close, random_image  # noqa: E402

from LKSegmentLib import networks  # noqa: E402
from LKSegmentLib.errors import InputError  # noqa: E402
from LKSegmentLib.inspection.by_network import exposed  # noqa: E402
from LKSegmentLib.inspection.exposed import Chosen, choose  # noqa: E402
from LKSegmentLib.inspection.recording import Taps  # noqa: E402
from LKSegmentLib.networks import prepare_for_inference  # noqa: E402

MEANING = {"kind", "unit", "range", "neutral", "operator", "identifiable"}


def recorded(network: Any, *names: str) -> tuple[dict[str, Any], Any]:
    """Maps by name, and the logits, of one random window."""
    chosen = choose(exposed(network), names, "tiny")
    with torch.inference_mode(), Taps(network, chosen) as taps:
        taps.start()
        logits = network(random_image(1, 1, 32, 32, 32))
    return {name: torch.from_numpy(taps.values[name]) for name in names}, logits


def inputs_of(network: Any, layer: str) -> tuple[Any, ...]:
    """What a module of the network is given for the same window."""
    seen: list[tuple[Any, ...]] = []
    handle = network.get_submodule(layer).register_forward_pre_hook(lambda module, given: seen.append(given))
    with torch.inference_mode():
        network(random_image(1, 1, 32, 32, 32))
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("prepared", [False, True])
def test_recording_everything_leaves_the_logits_as_they_are_to_the_last_bit(name: str, prepared: bool) -> None:
    network = tiny(name)
    image = random_image(1, 1, 32, 32, 32)
    chosen = [Chosen(entry, None if entry.summary or entry.is_table else 0) for entry in exposed(network)]
    preparation = prepare_for_inference(network) if prepared else None
    with torch.inference_mode():
        plain = network(image)
        with Taps(network, chosen) as taps:
            silent = network(image)
            assert not taps.values, "nothing is recorded that was not asked for"
            taps.start()
            tapped = network(image)
        after = network(image)
    assert torch.equal(plain, tapped) and torch.equal(plain, silent) and torch.equal(plain, after)
    assert taps.values.keys() == {entry.name for entry in chosen}
    assert not any(module._forward_hooks for module in network.modules()), "no hook may stay behind"
    if preparation is not None:
        replaced = set(preparation.replaced)
        assert {name for name, module in network.named_modules() if "forward" in module.__dict__} <= replaced
        preparation.undo()


@pytest.mark.parametrize("name", TINY)
def test_every_entry_says_what_it_is_and_has_the_shape_its_stride_promises(name: str) -> None:
    network = tiny(name)
    entries = exposed(network)
    assert len({entry.name for entry in entries}) == len(entries)
    assert any(entry.default for entry in entries)
    chosen = [
        Chosen(entry, entry.channels - 1 if entry.channels > 1 and not entry.is_table else None) for entry in entries
    ]
    with torch.inference_mode(), Taps(network, chosen) as taps:
        taps.start()
        network(random_image(1, 1, 32, 32, 32))
    for one in chosen:
        assert one.exposed.meaning.keys() >= MEANING
        value = taps.values[one.name]
        edge = 32 // one.exposed.stride
        shapes = {
            "voxels": (edge,) * 3,
            "window": (),
            "slices": (len(one.exposed.columns) or edge, edge),
            "channels": (one.exposed.channels, *value.shape[1:]),
        }
        assert value.shape == shapes[one.exposed.extent]
        if one.exposed.extent == "channels":
            continue  # the range is that of the area under the curve, not of the gate
        low, high = one.exposed.meaning["range"]
        assert low is None or value.min() >= low
        assert high is None or value.max() <= high


def kernel_parts(network: Any, layer: str) -> dict[str, Any]:
    """Responses, spatial maps and channel gate of a dynamic large kernel, from its input, written out."""
    (x,) = inputs_of(network, layer)
    part = network.get_submodule(layer)
    half = x.shape[1] // 2
    narrow = functional.conv3d(x, part.channel_proj.weight)
    near = functional.conv3d(narrow, part.att_conv1.weight, part.att_conv1.bias, padding=2, groups=half)
    far = functional.conv3d(near, part.att_conv2.weight, part.att_conv2.bias, padding=9, dilation=3, groups=half)
    both = torch.cat((near, far), dim=1)
    pooled = torch.stack((both.mean(1), both.max(1).values), dim=1)
    select = part.spatial_se[0]
    spatial = torch.sigmoid(functional.conv3d(pooled, select.weight, select.bias, padding=3))
    weights = spatial.sum(1, keepdim=True) if part.selection == "sum" else spatial.repeat_interleave(half, dim=1)
    selected = both * weights
    gate = torch.sigmoid(functional.conv3d(selected.mean((2, 3, 4), keepdim=True), part.conv_atten[0].weight))
    sizes = (gate * selected).abs()[0]
    return {
        "spatial": spatial[0],
        "preference": sizes[half:].sum(0) / sizes.sum(0),
        "share": gate[0, half:].mean() / (gate[0, half:].mean() + gate[0, :half].mean()),
    }


@pytest.mark.parametrize(
    ("name", "place", "layer"),
    [
        ("dnet", "decoder 1/2 block 0", "decoder.stages.1.0"),
        ("dnet", "encoder 1/4 block 0", "encoder.stages.1.0"),
        ("dlknetr", "encoder 1/2 block 0", "decoder.DLKEncoder.stages.0.0"),
    ],
)
@pytest.mark.parametrize("selection", ["sum", "per_kernel"])
def test_dynamic_large_kernels_show_what_they_computed(name: str, place: str, layer: str, selection: str) -> None:
    network = tiny(name, selection=selection)
    gates = ["spatial gate w1+w2"] if selection == "sum" else ["near-kernel gate", "far-kernel gate"]
    names = [f"{what}, {place}" for what in (*gates, "far-kernel preference", "far-kernel share")]
    maps, _ = recorded(network, *names)
    wanted = kernel_parts(network, f"{layer}.attn.spatial_gating_unit")
    spatial = [wanted["spatial"].sum(0)] if selection == "sum" else list(wanted["spatial"])
    for found, expected in zip(maps.values(), [*spatial, wanted["preference"], wanted["share"]], strict=True):
        assert_close(found, expected)


def test_swapping_the_two_spatial_maps_matters_only_where_each_has_its_own_kernel() -> None:
    """The reason why "sum" offers no map of one kernel."""
    changes = {}
    for selection in ("sum", "per_kernel"):
        network = tiny("dnet", selection=selection)
        names = [entry.name for entry in exposed(network)]
        single = [name for name in names if "-kernel gate" in name]
        assert bool(single) == (selection == "per_kernel")
        assert bool([name for name in names if "w1+w2" in name]) == (selection == "sum")
        image = random_image(1, 1, 32, 32, 32)
        with torch.inference_mode():
            before = network(image)
            for module in network.modules():
                if hasattr(module, "spatial_se"):
                    for tensor in module.spatial_se[0].parameters():
                        tensor.copy_(tensor.flip(0))
            changes[selection] = float((network(image) - before).abs().max())
    assert changes["sum"] < 1e-5, "only the sum acts: nothing changes but the order of one addition"
    assert changes["per_kernel"] > 1e-2


def test_evidential_uncertainty_is_that_of_the_networks_own_prediction() -> None:
    network = tiny("dalight3d", evidential=True)
    maps, _ = recorded(network, "epistemic uncertainty", "aleatoric uncertainty")
    with torch.inference_mode():
        wanted = network.predict(random_image(1, 1, 32, 32, 32))
    assert_close(maps["epistemic uncertainty"], wanted["epistemic"][0])
    assert_close(maps["aleatoric uncertainty"], wanted["aleatoric"][0])


def test_unknown_maps_and_channels_are_refused_with_those_there_are() -> None:
    entries = exposed(tiny("lka_unet"))
    with pytest.raises(InputError, match=r"no map 'heat'.*LK attention, level 0 \(or one channel: #0 to #3\); LK"):
        choose(entries, ["heat"], "tiny")
    with pytest.raises(InputError, match='"class activation, LABEL"'):
        choose(entries, ["heat"], "tiny")
    with pytest.raises(InputError, match=r"Names with these words: LK attention, level 1 \(or one channel[^;]*\)\.$"):
        choose(entries, ["lk ATTENTION, level 1"], "tiny")
    with pytest.raises(InputError, match="#0 to #3; there is no channel 4"):
        choose(entries, ["LK attention, level 0 #4"], "tiny")
    with pytest.raises(InputError, match="at least one"):
        choose(entries, [], "tiny")
    with pytest.raises(InputError, match="choose one, skip-fusion query map, decoder 1/2 #0 to #2"):
        choose(exposed(tiny("dalight3d")), ["skip-fusion query map, decoder 1/2"], "tiny")
    with pytest.raises(InputError, match="'uncertainty' has no channels"):
        choose(exposed(tiny("dalight3d")), ["uncertainty #3"], "tiny")
    with pytest.raises(InputError, match="nothing to show"):
        choose(exposed(torch.nn.Conv3d(1, 1, 1)), None, "plain")


def test_weights_of_slices_are_tables_and_never_maps() -> None:
    with torch.device("meta"):
        entries = exposed(networks.create("msa2net", in_channels=1, out_channels=2))
    assert len(entries) == 25 and all(entry.is_table for entry in entries)
    (default,) = choose(entries, None, "msa2net")
    assert default.name == "mean kernel size by module" and len(default.exposed.columns) == 24
    with pytest.raises(InputError, match="is a table and is shown whole: leave out #1"):
        choose(entries, [f"{entries[1].name} #1"], "msa2net")
