"""Whole volumes through a network and back: geometry, edge cases, memory, progress, cancelling, recording."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_inference_preparation import oriented
from test_packages_manifest import GOOD

torch = pytest.importorskip("torch")

from LKSegmentLib import networks  # noqa: E402
from LKSegmentLib.errors import Cancelled, InputError, RunError  # noqa: E402
from LKSegmentLib.inference import memory, segment_volume  # noqa: E402
from LKSegmentLib.inference.memory import network_memory  # noqa: E402
from LKSegmentLib.inference.segmentation import planned  # noqa: E402
from LKSegmentLib.networks.preparation import prepare_for_inference  # noqa: E402
from LKSegmentLib.packages.manifest import manifest_from  # noqa: E402
from LKSegmentLib.volumes import Grid, Volume  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


class Threshold(torch.nn.Module):
    """Class n where the value lies nearest to n: an answer that must come out where the value went in."""

    def __init__(self, classes: int = 2, answer: str = "tensor") -> None:
        super().__init__()
        self.centres = torch.nn.Parameter(torch.arange(classes, dtype=torch.float32), requires_grad=False)
        self.answer = answer

    def forward(self, image: torch.Tensor) -> Any:
        logits = image[:, :1] * self.centres[:, None, None, None] - self.centres[:, None, None, None] ** 2 / 2
        if self.answer == "list":
            return [logits, logits[..., ::2, ::2, ::2]]
        if self.answer == "nan":
            return logits * float("nan")
        if self.answer == "small":
            return logits[..., 1:, :, :]
        if self.answer == "error":
            raise RuntimeError("no kernel for this shape\nstack of the library")
        return logits


class Mixing(torch.nn.Module):
    """Random weights and a reach, so that windows disagree and stitching matters."""

    size_multiple = 8

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.convolution = torch.nn.Conv3d(1, classes, 5, padding=2).requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.convolution(image) + image.mean()


class FakePackage:
    def __init__(self, network: torch.nn.Module, **changes: Any) -> None:
        values = {"spacing": None, "window": [16, 16, 16], "channels": [{"intensity": {"rule": "none"}}]}
        classes = changes.get("out_channels", 2)
        labels = [f"class {number}" for number in range(classes)]
        values |= {"out_channels": classes, "labels": labels, **changes}
        self.manifest = manifest_from({**GOOD, **values}, "The manifest")
        self._network = network.eval()

    def network(self, device: Any = "cpu") -> torch.nn.Module:
        return self._network


def segment(volume: Volume, package: Any, **more: Any) -> Volume:
    return segment_volume(volume, package, "cpu", **more)


def noise(*shape: int) -> Volume:
    return Volume(np.random.default_rng(1).normal(size=shape).astype(np.float32), np.diag([1.0, 1.0, 1.0, 1.0]))


def ball(grid: Grid, centre: tuple[float, float, float], radius: float) -> Volume:
    """A ball with a soft edge of one millimetre: 1 inside, 0 outside, one half on the surface."""
    k, j, i = np.meshgrid(*(np.arange(length) for length in grid.shape), indexing="ij")
    distance = np.linalg.norm(grid.ras_of(np.stack((i, j, k), axis=-1)) - centre, axis=-1)
    return Volume(np.clip(radius - distance + 0.5, 0, 1).astype(np.float32), grid.ijk_to_ras)


def test_labels_land_on_their_voxels_in_every_orientation() -> None:
    canonical = np.random.default_rng(0).integers(0, 3, size=(9, 20, 17)).astype(np.int16)
    package = FakePackage(Threshold(3), out_channels=3)
    for volume in oriented(canonical, (1.2, 1.0, 3.0)):
        labels = segment(volume, package)
        assert labels.array.dtype == np.uint16
        assert np.array_equal(labels.array, volume.array)
        assert labels.grid == volume.grid


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 2.0, 5.0), (3.0, 3.0, 3.0)])
def test_after_resampling_a_structure_is_where_it_was(spacing: tuple[float, float, float]) -> None:
    """An oblique, anisotropic grid; the network works at 1.5 mm."""
    angle = np.deg2rad(25)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([1, -1, 1]) @ np.diag(spacing)
    matrix[:3, 3] = (-20, 30, 5)
    size = [int(round(40 / step)) for step in spacing]
    grid = Grid((size[2], size[1], size[0]), matrix)
    volume = ball(grid, tuple(grid.centre_ras + (1.1, -0.7, 0.4)), 12.0)
    labels = segment(volume, FakePackage(Threshold(2), spacing=[1.5, 1.5, 1.5]))
    wanted = volume.array > 0.5
    found = labels.array == 1
    assert labels.grid == volume.grid
    dice = 2 * (wanted & found).sum() / (wanted.sum() + found.sum())
    assert dice > 0.96
    indices = [np.argwhere(mask)[:, ::-1].mean(axis=0) for mask in (wanted, found)]
    assert np.abs(indices[0] - indices[1]).max() < 0.1


def test_interpolated_logits_follow_the_surface_better_than_enlarged_labels() -> None:
    fine = Grid((30, 40, 40), np.diag([1.0, 1.0, 1.0, 1.0]))
    volume = ball(fine, (19.3, 20.1, 14.6), 11.0)
    wanted = volume.array > 0.5
    labels = segment(volume, FakePackage(Threshold(2), spacing=[2.5, 2.5, 2.5])).array
    coarse = Grid((12, 16, 16), np.diag([2.5, 2.5, 2.5, 1.0]))
    from LKSegmentLib.volumes import resample

    small = resample(volume, fine.with_spacing((2.5, 2.5, 2.5)))
    enlarged = resample(small.with_array((small.array > 0.5).astype(np.uint8)), fine, "nearest").array
    assert coarse.shape == small.array.shape
    assert (labels != wanted).sum() < 0.5 * (enlarged != wanted).sum()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 30), (5, 6, 7), (16, 16, 16), (40, 3, 17)])
def test_volumes_smaller_than_a_window(shape: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).integers(0, 2, size=shape).astype(np.int32)
    labels = segment(Volume(array, np.diag([1.0, 1.0, 4.0, 1.0])), FakePackage(Threshold(2)))
    assert np.array_equal(labels.array, array)
    moved = segment(Volume(array, np.diag([1.0, 1.0, 4.0, 1.0])), FakePackage(Threshold(2), spacing=[1.5, 1.5, 1.5]))
    assert moved.array.shape == shape


def test_tiles_and_streaming_do_not_change_a_label() -> None:
    volume = Volume(noise(33, 41, 38).array, np.diag([1.0, -1.2, 1.4, 1.0]))
    for spacing in (None, [1.3, 1.1, 1.7]):
        package = FakePackage(Mixing(5), out_channels=5, spacing=spacing)
        whole = segment(volume, package)
        assert len(np.unique(whole.array)) == 5
        for limit in (400_000, 100_000):
            plan = planned(volume, package.manifest, package.network(), limit)[3]
            assert len(plan.tiles) > 1 and plan.slab <= limit
            tiled = segment(volume, package, slab_limit=limit)
            assert (tiled.array != whole.array).mean() < 1e-4


def test_several_channels_and_deep_supervision() -> None:
    array = np.stack([noise(8, 9, 10).array > 0, noise(8, 9, 10).array * 0 + 5]).astype(np.float32)
    channels = [{"name": name, "intensity": {"rule": "none"}} for name in ("T1", "T2")]
    package = FakePackage(Threshold(2, "list"), in_channels=2, channels=channels)
    assert np.array_equal(segment(Volume(array, np.eye(4)), package).array, array[0])


def test_regions_may_overlap_and_the_last_one_wins() -> None:
    class Regions(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat((image - 0.5, image - 1.5), dim=1)

    array = np.random.default_rng(0).integers(0, 3, size=(4, 5, 6)).astype(np.float32)
    package = FakePackage(Regions(), output="regions", labels=["whole tumour", "core"])
    assert np.array_equal(segment(Volume(array, np.eye(4)), package).array, array)


def test_progress_goes_forward_through_its_stages_and_changes_nothing() -> None:
    said: list[tuple[str, float]] = []
    package = FakePackage(Mixing(3), out_channels=3)
    quiet = segment(noise(20, 20, 20), package)
    loud = segment(noise(20, 20, 20), package, progress=lambda stage, part: said.append((stage, part)))
    assert np.array_equal(quiet.array, loud.array)
    assert list(dict.fromkeys(stage for stage, _ in said)) == ["preparing", "windows", "labels"]
    for stage in ("preparing", "windows", "labels"):
        parts = [part for name, part in said if name == stage]
        assert parts == sorted(parts) and parts[-1] == 1.0 and parts[0] >= 0.0


def test_cancelling_stops_between_windows() -> None:
    windows = []

    class Counting(Threshold):
        def forward(self, image: torch.Tensor) -> Any:
            windows.append(image.shape)
            return super().forward(image)

    with pytest.raises(Cancelled):
        segment(noise(40, 40, 40), FakePackage(Counting(2)), cancelled=lambda: len(windows) >= 4)
    # Once to see what memory the network needs, then three windows.
    assert len(windows) == 4


class Recorder:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def start(self, layout: Any, grid: Any) -> None:
        self.layout, self.grid = layout, grid
        self.sums = torch.zeros((3, *layout.shape))

    def before_window(self, window: Any) -> None:
        self.events.append(("before", window.index))

    def after_window(self, window: Any, logits: torch.Tensor) -> None:
        from LKSegmentLib.inference.windows import Region

        self.events.append(("after", window.index))
        inside = Region((0, 0, 0), self.layout.shape).overlap(window)
        k, j, i = (torch.from_numpy(weight) for weight in self.layout.weights)
        there = inside.slices(window.lower)
        weighted = logits * (k[:, None, None] * j[:, None] * i)
        self.sums[(slice(None), *inside.slices((0, 0, 0)))] += weighted[(slice(None), *there)]


@pytest.mark.parametrize("limit", [2**30, 150_000])
def test_a_recorder_sees_every_window_once_and_changes_nothing(limit: int) -> None:
    volume, package, recorder = noise(30, 40, 40), FakePackage(Mixing(3), out_channels=3), Recorder()
    expected = segment(volume, package, slab_limit=limit)
    recorded = segment(volume, package, slab_limit=limit, recorder=recorder)
    assert np.array_equal(expected.array, recorded.array)
    seen = [index for kind, index in recorder.events if kind == "after"]
    assert sorted(seen) == list(range(recorder.layout.count))
    assert [kind for kind, _ in recorder.events] == ["before", "after"] * len(seen)
    assert recorder.grid == volume.grid
    # What the recorder stitched with the same weights gives the same labels.
    assert (recorder.sums.argmax(0).numpy() != recorded.array).mean() < 1e-4


def test_what_does_not_go_together_is_one_sentence() -> None:
    volume = noise(8, 8, 8)
    for package, kind, words in (
        (FakePackage(Threshold(2), kind="click"), InputError, "works with clicks"),
        (
            FakePackage(Threshold(2), in_channels=2, channels=[{"intensity": {"rule": "none"}}] * 2),
            InputError,
            "wants 2",
        ),
        (FakePackage(Threshold(2, "nan")), RunError, "not finite"),
        (FakePackage(Threshold(2, "error")), RunError, r"failed on .* \(no kernel for this shape\)"),
        (FakePackage(Threshold(3)), RunError, "describes another network"),
        (FakePackage(Threshold(2, "small")), RunError, "describes another network"),
    ):
        with pytest.raises(kind, match=words) as raised:
            segment(volume, package)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="does not exist"):
        segment_volume(volume, FakePackage(Threshold(2)), "cuda:98")


def test_the_memory_inside_a_network_is_known_from_a_small_window() -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(8, 2, 1))
    weights = sum(parameter.numel() * 4 for parameter in network.parameters())
    voxels = 16**3 * 4
    # The largest moment: the first convolution's answer and its rectified copy, beside the image.
    expected = weights + 1.25 * (1 + 8 + 8) * voxels
    assert network_memory(network, 1, (16, 16, 16)) == pytest.approx(expected, rel=1e-6)
    assert network_memory(network, 1, (64, 64, 64)) == pytest.approx(weights + 64 * (expected - weights), rel=1e-6)


class Prepared(torch.nn.Module):
    """A network that keeps its weights once more, in the order that its library wants, after its first run."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4, 1, 3, 3, 3), requires_grad=False)
        self.kept: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if not self.kept:
            self.kept = [self.weight.clone(), self.weight.to_mkldnn()]
        return torch.nn.functional.conv3d(image, self.kept[0], padding=1)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_what_a_network_keeps_after_its_first_run_does_not_grow_with_the_window() -> None:
    weights, voxels = 4 * 27 * 4, 64**3 * 4
    expected = 2 * weights + 1.25 * (1 + 4) * voxels  # the one in oneDNN's own order cannot be looked at
    assert network_memory(Prepared(), 1, (64, 64, 64)) == pytest.approx(expected, rel=1e-6)


def test_the_memory_is_that_of_the_form_which_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny U-Net: its prepared form keeps its maps for the next window, which its own form does not."""
    network = networks.create("lka_unet", feature_sizes=(8, 8, 16), norm_groups=2, attention={0: (9, 3)})
    network.eval().requires_grad_(False)
    state = [*network.parameters(), *network.buffers()]
    image = torch.zeros(1, 1, 96, 64, 64)
    for device, runs in (("cpu", True), ("meta", False)):
        with memory.as_it_runs(network, torch.device(device)):
            assert ("forward" in network.__dict__) == runs
    with torch.inference_mode(), memory.LiveBytes(state) as live, prepare_for_inference(network):
        network(image)
    predicted = network_memory(network, 1, (96, 64, 64))
    assert "forward" not in network.__dict__
    assert live.peak < predicted < 3 * live.peak
    monkeypatch.setattr(memory, "as_it_runs", lambda *_: nullcontext())
    memory.MEASURED.clear()
    assert network_memory(network, 1, (96, 64, 64)) != predicted
    assert memory.smallest_window(network, (16, 64, 64)) == (16, 32, 32)


def test_a_prepared_window_that_is_small_is_measured_as_it_is() -> None:
    network = networks.create("lka_unet", out_channels=2, feature_sizes=(8, 16), norm_groups=2, attention={0: (9, 3)})
    network.eval().requires_grad_(False)
    shapes: list[tuple[int, ...]] = []
    with memory.as_it_runs(network, torch.device("cpu")):
        network.register_forward_pre_hook(lambda module, given: shapes.append(tuple(given[0].shape[2:])))
        network_memory(network, 1, (24, 32, 32))
        assert set(shapes) == {(24, 32, 32)}
        network_memory(network, 1, (64, 64, 64))
    assert set(shapes) == {(24, 32, 32), (64, 32, 32), (128, 32, 32)}


# VmHWM, not ru_maxrss: a child starts with the resident size that its parent had, here that of all tests so far.
MEASURE = """
import re, sys
import numpy as np, torch
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))
sys.path[:0] = [sys.argv[1], sys.argv[2]]
torch.set_num_threads(1)
from test_inference_segmentation import FakePackage, segment, planned, Mixing, Volume
package = FakePackage(Mixing(48), out_channels=48, window=[32, 32, 32], overlap=0.25, spacing=[1.0, 1.0, 1.0])
volume = Volume(np.zeros((90, 110, 110), np.int16), np.diag([1.1, 1.1, 1.1, 1.0]))
segment(Volume(np.zeros((8, 8, 8), np.int16), volume.ijk_to_ras), package)
before = peak()
plan = planned(volume, package.manifest, package.network())[3]
segment(volume, package)
after = peak()
print(1024 * before, 1024 * after, plan.peak_bytes, plan.slab)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_no_array_of_classes_times_the_volume_is_ever_held() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(ROOT), str(ROOT / "Testing" / "Unit")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    before, after, predicted, slab = (int(number) for number in done.stdout.split())
    everything = 4 * 48 * 99 * 121 * 121
    assert after - before < 0.7 * everything
    assert 0.5 * slab < after - before  # `before` may already hold a part of it
    assert 0.7 * after < predicted < 1.4 * after


def test_a_saved_package_segments_a_real_image_the_same_however_its_axes_lie(real_data: Path, tmp_path: Path) -> None:
    from LKSegmentLib import networks, packages
    from LKSegmentLib.volumes import read_volume

    path = real_data / "01_ct_abdomen_multiorgan" / "ct.nii.gz"
    if not path.is_file():
        pytest.skip("case 01 is not here")
    volume = read_volume(path)
    torch.manual_seed(0)
    options = {"feature_sizes": [8, 8, 8], "depths": [1, 1, 1]}
    network = networks.create("lk_click", in_channels=1, out_channels=3, **options).eval()
    with torch.no_grad():
        # Random weights, moved so that every class wins somewhere.
        means = network(torch.rand(1, 1, 32, 32, 32)).mean(dim=(0, 2, 3, 4))
        network.head[0].bias -= means.repeat_interleave(8)
    folder = packages.save(
        tmp_path / "random",
        network="lk_click",
        options=options,
        state_dict=network.state_dict(),
        labels=["one", "two"],
        spacing=(4.0, 4.0, 4.0),
        window=(48, 48, 48),
        overlap=0.25,
        intensity={"rule": "ct", "window": [-160, 240]},
        licence="none: random weights",
    )
    labels = segment(volume, packages.load(folder))
    assert labels.grid == volume.grid and len(np.unique(labels.array)) == 3
    # The same image stored with k, j, i running along the old i, k (backwards), j.
    axes = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, -1, 0, volume.grid.shape[0] - 1], [0, 0, 0, 1.0]])
    turned = Volume(volume.array.transpose(2, 0, 1)[:, ::-1], volume.ijk_to_ras @ axes)
    expected = labels.array.transpose(2, 0, 1)[:, ::-1]
    # Canonical axes undo the turn exactly; only the rounding of the geometry may move a tie.
    assert (segment(turned, packages.load(folder)).array != expected).mean() < 1e-4
