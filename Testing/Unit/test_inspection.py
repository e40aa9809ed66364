"""Maps of the click model: at the right place, with a passport, and without touching the answer."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.clicks import ClickModelSession
from LKSegmentLib.inspection.click_maps import DEFAULT_LAYERS, EXPOSED, click_maps, separation
from LKSegmentLib.inspection.maps import reduced_grid
from LKSegmentLib.inspection.taps import recorded
from LKSegmentLib.networks import prepare_for_inference
from LKSegmentLib.networks.lk_click import LKClick
from LKSegmentLib.prompts import CHANNELS, Point
from LKSegmentLib.volumes import Grid, Volume


def random_session(volume: Volume, window: int = 32) -> ClickModelSession:
    torch.manual_seed(0)
    network = LKClick(in_channels=len(CHANNELS), layer_scale=1.0).eval()
    manifest = SimpleNamespace(
        name="random", network="lk_click", kind="click", in_channels=len(CHANNELS), window=(window,) * 3,
        prompts={},
    )
    return ClickModelSession(volume, SimpleNamespace(manifest=manifest, network=lambda device: network))


def oblique_volume(shape=(32, 36, 40)) -> Volume:
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    rotation[:, 0] *= np.sign(np.linalg.det(rotation))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array([1.0, 1.0, 1.4])
    matrix[:3, 3] = (-30, 12, 45)
    return Volume(np.random.default_rng(2).normal(size=shape).astype(np.float32), matrix)


def test_recording_does_not_change_the_answer() -> None:
    network = LKClick(in_channels=2, feature_sizes=(8, 16, 16), depths=(1, 1, 1)).eval()
    x = torch.randn(1, 2, 16, 16, 16)
    with torch.inference_mode():
        plain = network(x)
        with recorded(network, ["attention.gate"]) as outputs:
            tapped = network(x)
    assert torch.equal(plain, tapped)
    assert outputs["attention.gate"].shape == (1, 16, 4, 4, 4)
    assert not network.attention.gate._forward_hooks, "no hook may stay behind"


def test_unknown_layers_and_maps_are_refused() -> None:
    volume = oblique_volume()
    session = random_session(volume)
    click = Point(tuple(volume.grid.centre_ras))
    with pytest.raises(InputError, match="no layer 'nowhere'"), recorded(session.network, ["nowhere"]):
        pass
    with pytest.raises(InputError, match="no map 'heat'.*LK attention"):
        click_maps(session, [click], ["heat"])
    with pytest.raises(InputError, match="at least one click"):
        click_maps(session, [])


def test_maps_have_passports_and_values_of_a_gate() -> None:
    volume = oblique_volume()
    session = random_session(volume)
    maps = click_maps(session, [Point(tuple(volume.grid.centre_ras))], [exposed.name for exposed in EXPOSED])
    assert [found.name for found in maps] == [exposed.name for exposed in EXPOSED]
    assert maps[0].name in DEFAULT_LAYERS
    for found in maps:
        assert 0 <= found.volume.array.min() and found.volume.array.max() <= 1
        again = json.loads(json.dumps(found.passport))
        assert {"network", "layer", "kind", "unit", "range", "neutral", "identifiable", "stitching", "sentence"} <= set(
            again
        )


def test_the_map_is_what_the_network_computed() -> None:
    volume = oblique_volume()
    session = random_session(volume)
    points = [Point(tuple(volume.grid.centre_ras))]
    (found,) = click_maps(session, points, ["LK attention (mean)"])
    seen = {}
    handle = session.network.attention.register_forward_pre_hook(lambda module, inputs: seen.update(f=inputs[0]))
    with torch.inference_mode():
        session.network(torch.from_numpy(session.inputs_for(points))[None])
        handle.remove()
        gate = session.network.attention
        expected = torch.sigmoid(gate.pw(gate.dw(gate.dwd(seen["f"]))))[0].mean(0).numpy()
    np.testing.assert_allclose(found.volume.array, expected, atol=1e-4)  # memory layouts round differently


def local_only(network: torch.nn.Module) -> torch.nn.Module:
    """Keep the centre tap of every odd kernel: what is left moves nothing, so an impulse stays where the grid is."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv3d):
                middle = module.weight.shape[-1] // 2
                kept = module.weight[..., middle, middle, middle].clone()
                module.weight.zero_()
                module.weight[..., middle, middle, middle] = kept
            elif isinstance(module, torch.nn.ConvTranspose3d):  # the same value in the whole block
                module.weight.copy_(module.weight[..., :1, :1, :1].expand_as(module.weight).clone())
    return network


@pytest.mark.parametrize("name", [exposed.name for exposed in EXPOSED])
@pytest.mark.parametrize("voxel", [(16, 16, 16), (8, 24, 16), (24, 8, 8)])
def test_an_impulse_in_the_image_lands_in_the_map_within_one_of_its_voxels(
    name: str, voxel: tuple[int, int, int]
) -> None:
    volume = oblique_volume()
    session = random_session(volume)
    points = [Point(tuple(volume.grid.centre_ras))]
    (found,) = click_maps(session, points, [name])
    exposed = next(entry for entry in EXPOSED if entry.name == name)
    network = local_only(session.network)
    inputs = torch.from_numpy(session.inputs_for(points))[None] * 0
    hit = inputs.clone()
    hit[0, :, voxel[0], voxel[1], voxel[2]] = 5.0
    changed = []
    for given in (inputs, hit):
        with torch.inference_mode(), recorded(network, [exposed.layer]) as outputs:
            logits = network(given)
        # channel 0 where a channel is chosen by the mask: the choice may differ between the two images
        chosen = outputs[exposed.layer][0, 0] if "channel closest" in name else None
        changed.append(exposed.reduce(outputs[exposed.layer], logits) if chosen is None else chosen)
    change = (changed[1] - changed[0]).abs().numpy()
    assert change.max() > 0
    lit = np.argwhere(change > 0.5 * change.max()).mean(0)
    window = session.state_for(points).window.window_grid
    distance = window.ijk_of(found.volume.grid.ras_of(lit[::-1])) - np.array(voxel[::-1])
    assert np.abs(distance).max() <= exposed.stride, "more than one voxel of the map along an axis"


def test_the_channel_closest_to_the_mask_is_found_and_named() -> None:
    output = torch.rand(1, 4, 6, 6, 6, generator=torch.Generator().manual_seed(3))
    logits = torch.full((1, 1, 24, 24, 24), -1.0)
    logits[..., 8:16, 8:16, 8:16] = 1.0
    output[0, 2, 2:4, 2:4, 2:4] += 1.0
    areas = separation(output, logits)
    assert areas.argmax() == 2 and areas[2] == 1.0 and 0.2 < areas[0] < 0.8
    assert (separation(output, logits * 0 - 1) == 0.5).all()
    volume = oblique_volume()
    session = random_session(volume)
    (found,) = click_maps(session, [Point(tuple(volume.grid.centre_ras))])
    assert 0 <= found.passport["channel"] < found.passport["channels"] == 64
    assert 0.5 <= found.passport["area under ROC"] <= 1


def test_reduced_grids_follow_both_conventions() -> None:
    window = Grid((16, 16, 16), np.diag([2.0, 2.0, 2.0, 1.0]))
    encoder = reduced_grid(window, 4, (4, 4, 4), 0.0)
    decoder = reduced_grid(window, 4, (4, 4, 4), 1.5)
    np.testing.assert_allclose(encoder.ras_of((1, 1, 1)), window.ras_of((4, 4, 4)))
    np.testing.assert_allclose(decoder.ras_of((1, 1, 1)), window.ras_of((5.5, 5.5, 5.5)))
    assert encoder.spacing == (8, 8, 8)


def counting(session: ClickModelSession) -> list[int]:
    runs: list[int] = []
    session.network.register_forward_hook(lambda *_: runs.append(1))
    return runs


def test_maps_are_recorded_while_the_click_is_answered_and_change_nothing_of_it() -> None:
    volume = oblique_volume()
    centre = tuple(volume.grid.centre_ras)
    points = [Point(centre), Point(tuple(value + 3 for value in centre), False)]
    names = [exposed.name for exposed in EXPOSED]
    plain, watched, late = (random_session(volume) for _ in range(3))
    plain_runs, watched_runs, late_runs = (counting(session) for session in (plain, watched, late))
    masks = [plain.mask_for(points[:count]) for count in (1, 2)]
    maps = [click_maps(watched, points[:count], names) for count in (1, 2)]
    for count, mask in zip((1, 2), masks, strict=True):
        again = watched.mask_for(points[:count])
        assert again.lower == mask.lower and np.array_equal(again.array, mask.array)
    assert len(plain_runs) == len(watched_runs) >= 2, "no run more than the clicks need"
    late.mask_for(points)
    for early, after in zip(maps[1], click_maps(late, points, names), strict=True):
        assert np.array_equal(early.volume.array, after.volume.array) and early.volume.grid == after.volume.grid
        assert early.passport == after.passport
    assert len(late_runs) == len(plain_runs) + 1, "an answer that is known already is looked at once more"
    assert not any(module._forward_hooks for name, module in watched.network.named_modules() if name)


def test_of_several_looks_the_one_that_became_the_mask_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first click looks wider or closer until the structure fits; the maps are those of the window that is kept."""
    volume = oblique_volume((48, 48, 48))
    session = random_session(volume)
    with torch.no_grad():
        session.network.head[0].weight.zero_()
        session.network.head[0].bias.fill_(1.0)  # everything belongs to the structure: it runs out of every window
    runs = counting(session)
    points = [Point(tuple(volume.grid.centre_ras))]
    (found,) = click_maps(session, points, ["LK attention (mean)"])
    assert len(runs) > 1
    with torch.inference_mode(), recorded(session.network, ["attention.gate"]) as outputs:
        session.network(torch.from_numpy(session.inputs_for(points))[None])
    np.testing.assert_allclose(found.volume.array, outputs["attention.gate"][0].mean(0).numpy(), atol=1e-6)


def test_what_is_recorded_of_a_prepared_click_model_is_that_of_the_ordinary_one() -> None:
    volume = oblique_volume()
    session = random_session(volume)
    points = [Point(tuple(volume.grid.centre_ras))]
    names = [exposed.name for exposed in EXPOSED]
    plain = click_maps(session, points, names)
    with prepare_for_inference(session.network):
        for expected, found in zip(plain, click_maps(session, points, names), strict=True):
            np.testing.assert_allclose(found.volume.array, expected.volume.array, atol=1e-4)


def test_separation_is_the_area_under_the_roc_curve_ties_included() -> None:
    generator = torch.Generator().manual_seed(5)
    output = torch.randint(0, 6, (1, 3, 4, 4, 4), generator=generator).float()
    logits = torch.randn(1, 1, 4, 4, 4, generator=generator) - 0.5
    inside = (logits > 0).flatten().numpy()
    for values, area in zip(output[0].flatten(1).numpy(), separation(output, logits), strict=True):
        here, there = values[inside][:, None], values[~inside]
        assert area == pytest.approx(((here > there) + 0.5 * (here == there)).mean())
