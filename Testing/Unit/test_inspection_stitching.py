"""Maps of a whole volume: at the right place, stitched as the segmentation is, honest about the windows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inspection_support import FakePackage, oblique_volume, plain_volume, tiny  # noqa: E402

from LKSegmentLib.errors import Cancelled, InputError  # noqa: E402
from LKSegmentLib.inference.segmentation import segment_volume  # noqa: E402
from LKSegmentLib.inference.windows import Window, window_layout  # noqa: E402
from LKSegmentLib.inspection.by_network import exposed  # noqa: E402
from LKSegmentLib.inspection.exposed import choose  # noqa: E402
from LKSegmentLib.inspection.recording import MapRecorder  # noqa: E402
from LKSegmentLib.inspection.stitching import Lattice, StitchedMap, WindowMap  # noqa: E402
from LKSegmentLib.inspection.volume_maps import inspect_volume, plan_inspection  # noqa: E402
from LKSegmentLib.volumes import Volume  # noqa: E402

PASSPORT = {
    "name", "model", "network", "layer", "operator", "kind", "unit", "range", "neutral", "identifiable", "sentence",
    "window (k, j, i)", "windows", "working spacing mm", "map spacing mm", "map shape (k, j, i)", "stitching",
    "native stride (working voxels)", "native spacing mm", "first voxel centred at (window voxels)",
}  # fmt: skip


class LogitsOnly:
    """Watches a run and keeps every window's logits; hands on to another recorder."""

    def __init__(self, other: MapRecorder | None = None) -> None:
        self.logits: dict[int, torch.Tensor] = {}
        self.other = other

    def start(self, layout: Any, grid: Any) -> None:
        if self.other is not None:
            self.other.start(layout, grid)

    def before_window(self, window: Window) -> None:
        if self.other is not None:
            self.other.before_window(window)

    def after_window(self, window: Window, logits: torch.Tensor) -> None:
        self.logits[window.index] = logits.clone()
        if self.other is not None:
            self.other.after_window(window, logits)


@pytest.mark.parametrize("name", ["dnet", "lka_unet"])
def test_recording_never_changes_logits_or_labels(name: str) -> None:
    volume = oblique_volume((40, 32, 52))
    network = tiny(name)
    package = FakePackage(name, network)
    plain = LogitsOnly()
    labels = segment_volume(volume, package, "cpu", recorder=plain)
    with MapRecorder(network, choose(exposed(network), None, name)) as recorder:
        watched = LogitsOnly(recorder)
        again = segment_volume(volume, package, "cpu", recorder=watched, slab_limit=200_000)  # tiles repeat windows
    assert len(plain.logits) == len(watched.logits) >= 4
    assert all(torch.equal(plain.logits[index], logits) for index, logits in watched.logits.items())
    unwatched = segment_volume(volume, package, "cpu")
    inspected, maps = inspect_volume(volume, package, device="cpu")
    assert np.array_equal(unwatched.array, labels.array)
    assert np.array_equal(labels.array, again.array) and np.array_equal(labels.array, inspected.array)
    assert inspected.grid == volume.grid and inspected.array.dtype == np.uint16
    assert maps and not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("stride", "offset", "multiple"), [(1, 0.0, 8), (4, 0.0, 8), (4, 1.5, 8), (8, 3.5, 4), (2, 0.5, 1), (16, 0.0, 8)]
)
def test_a_function_of_place_is_stitched_to_itself_at_its_true_place(stride: int, offset: float, multiple: int) -> None:
    """Each window tells the place of its voxels in the volume: the stitched map must tell its own."""
    layout = window_layout((37, 30, 16), (16, 16, 16), 0.5, multiple)
    lattice = Lattice.of(layout, stride, offset)
    working = plain_volume((37, 30, 16)).grid
    stitched = StitchedMap(lattice)
    count = 16 // stride
    for window in layout.windows():
        k, j, i = (low + offset + stride * np.arange(count) for low in window.lower)
        stitched.add(window, (k[:, None, None] + 100 * j[:, None] + 10000 * i).astype(np.float32))
    mean, disagreement = stitched.finished()
    grid = lattice.grid(working)
    place = np.indices(mean.shape).reshape(3, -1).T[:, ::-1]
    i, j, k = working.ijk_of(grid.ras_of(place)).T
    own = (k + 100 * j + 10000 * i).reshape(mean.shape)
    # A voxel that is repeated on a finer lattice stands for its block, so it is at most half a stride off.
    slack = sum(weight * (stride - step) / 2 for weight, step in zip((1, 100, 10000), lattice.steps, strict=True))
    assert np.abs(mean - own).max() <= slack + 0.01
    if slack == 0:
        assert disagreement.max() < 0.01
    covered = [
        (grid.ras_of(np.zeros(3)) - 0.5 * np.array(grid.spacing)),
        grid.ras_of(place[-1]) + 0.5 * np.array(grid.spacing),
    ]
    assert (covered[1] >= np.array((15, 29, 36)) - stride + 1).all() and (covered[0] <= stride - 1).all()


def test_the_mean_and_the_disagreement_are_weighted_as_the_logits_are() -> None:
    layout = window_layout((24, 16, 16), (16, 16, 16), 0.5, 8)
    assert layout.starts[0] == (0, 8)
    stitched = StitchedMap(Lattice.of(layout, 1, 0.0))
    for window, value in zip(layout.windows(), (2.0, 5.0), strict=True):
        stitched.add(window, np.full((16, 16, 16), value, np.float32))
    mean, disagreement = stitched.finished()
    weight = layout.weights[0].astype(np.float64)
    share = np.zeros(24)
    share[:16] += weight
    share[:16] /= layout.totals[0][:16]
    expected = 2 * share + 5 * (1 - share)
    np.testing.assert_allclose(mean[:, 3, 7], expected, rtol=1e-5)
    spread = np.sqrt(share * (2 - expected) ** 2 + (1 - share) * (5 - expected) ** 2)
    np.testing.assert_allclose(disagreement[:, 3, 7], spread, atol=1e-5)
    assert disagreement[:8].max() == 0 and disagreement[8:16].min() > 0.05


def test_numbers_of_whole_windows_are_drawn_with_hard_borders_between_them() -> None:
    layout = window_layout((24, 16, 20), (16, 16, 16), 0.5, 8)
    drawn = WindowMap(Lattice.of_windows(layout))
    values = [float(number) for number in range(layout.count)]
    for window, value in zip(layout.windows(), values, strict=True):
        drawn.add(window, value)
    assert set(np.unique(drawn.finished())) == set(values), "nothing in between"
    assert [value for _, value in drawn.values] == values


def test_pooled_quantities_stay_numbers_of_windows() -> None:
    network = tiny("dnet")
    name = "far-kernel share, decoder 1/2 block 0"
    _, maps = inspect_volume(plain_volume((48, 32, 32)), FakePackage("dnet", network), [name], "cpu")
    (found,) = maps
    assert found.name == name, "no disagreement map: nothing is averaged"
    listed = [entry["value"] for entry in found.passport["values of windows"]]
    assert len(listed) == found.passport["windows"] > 1
    assert set(np.unique(found.volume.array)) <= {np.float32(value) for value in listed}
    assert "none" in found.passport["native grid"] and "none" in found.passport["stitching"]


def test_maps_cover_the_volume_in_raw_units_with_passports_and_their_companions() -> None:
    volume = oblique_volume((40, 36, 52))
    network = tiny("lka_unet", variant="mid")
    said: list[str] = []
    _, maps = inspect_volume(volume, FakePackage("lka_unet", network), None, "cpu", announce=said.append)
    assert [found.name for found in maps] == ["LK attention, level 2", "LK attention, level 2: window disagreement"]
    attention, disagreement = maps
    assert len(said) == 1 and "1 map" in said[0] and "MiB" in said[0] and " s." in said[0]
    for found in maps:
        again = json.loads(json.dumps(found.passport))
        assert PASSPORT <= again.keys()
        assert found.volume.array.dtype == np.float32 and found.volume.array.shape == tuple(
            again["map shape (k, j, i)"]
        )
        extent = found.volume.grid.shape * np.array(found.volume.spacing[::-1])
        assert (extent >= np.array(volume.grid.shape) * np.array(volume.spacing[::-1]) - 1e-6).all()
    assert attention.passport["native stride (working voxels)"] == 4
    assert attention.passport["first voxel centred at (window voxels)"] == 1.5
    assert "disagreement" not in disagreement.passport
    assert attention.passport["disagreement"]["map"] == disagreement.name
    assert 0 < attention.volume.array.min() and attention.volume.array.max() < 1
    assert disagreement.volume.array.min() >= 0 and disagreement.volume.array.max() > 0
    assert disagreement.passport["kind"] == "disagreement of windows"


def test_one_window_has_nothing_to_disagree_with_and_is_the_layers_own_tensor() -> None:
    network = tiny("lka_unet", variant="mid")
    volume = plain_volume((32, 32, 32))
    _, maps = inspect_volume(volume, FakePackage("lka_unet", network), ["LK attention, level 2 #3"], "cpu")
    (found,) = maps
    seen: list[Any] = []
    handle = network.lk["2"].gate.register_forward_hook(lambda module, given, answer: seen.append(answer))
    with torch.inference_mode():
        network(torch.from_numpy(volume.array)[None, None])
    handle.remove()
    np.testing.assert_allclose(found.volume.array, seen[0][0, 3].numpy(), atol=1e-6)
    assert found.passport["channel"] == 3 and found.passport["stitching"] == "none: one window"
    assert found.passport["disagreement"] == "none: one window"


@pytest.mark.parametrize(
    ("name", "map_name", "window"),
    [
        ("dlknetr", "decoder features 1/4", (35, 33, 32)),
        ("dalight3d", "skip-fusion key map, decoder 1/2 #0", (19, 17, 16)),
    ],
)
def test_windows_and_spacings_that_fit_nothing_still_cover_the_volume(
    name: str, map_name: str, window: tuple[int, int, int]
) -> None:
    volume = oblique_volume((30, 37, 41))
    package = FakePackage(name, tiny(name), window, spacing=[1.1, 1.1, 1.9])
    _, maps = inspect_volume(volume, package, [map_name], "cpu")
    assert maps[0].passport["working spacing mm"] == [1.1, 1.1, 1.9] and maps[0].passport["windows"] > 1
    for found in maps:
        assert np.isfinite(found.volume.array).all()
        assert found.volume.grid.contains(volume.grid.corners_ras).all()


def test_click_models_and_cancelling() -> None:
    package = FakePackage("lka_unet", tiny("lka_unet", variant="mid"))
    with pytest.raises(InputError, match="points"):
        plan_inspection(plain_volume((32, 32, 32)), FakePackage("dnet", tiny("dnet"), kind="click"))
    with pytest.raises(Cancelled):
        inspect_volume(plain_volume((48, 48, 48)), package, device="cpu", cancelled=lambda: True)
    network = package.network()
    assert not any(module._forward_hooks for module in network.modules())


def test_a_volume_of_the_wrong_channels_is_refused() -> None:
    volume = plain_volume((32, 32, 32))
    two = Volume(np.stack((volume.array, volume.array)), volume.ijk_to_ras)
    with pytest.raises(InputError, match="channel"):
        inspect_volume(two, FakePackage("dnet", tiny("dnet")), device="cpu")
