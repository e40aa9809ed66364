"""Reach: the gradient of one logit, its half widths in millimetres, and what kernels could touch."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inspection_support import FakePackage, oblique_volume, plain_volume, tiny  # noqa: E402
from networks_support import randomise  # noqa: E402

from LKSegmentLib import networks  # noqa: E402
from LKSegmentLib.errors import InputError, RunError  # noqa: E402
from LKSegmentLib.inference.clicks import ClickModelSession  # noqa: E402
from LKSegmentLib.inspection import gradients as gradients_module  # noqa: E402
from LKSegmentLib.inspection.reach import (  # noqa: E402
    click_reach,
    half_widths,
    theoretical_voxels,
    volume_reach,
    voxels_around,
)
from LKSegmentLib.networks.lk_click import LKClick  # noqa: E402
from LKSegmentLib.networks.registry import missing_packages  # noqa: E402
from LKSegmentLib.prompts import CHANNELS, Point  # noqa: E402
from LKSegmentLib.volumes import canonical_axes  # noqa: E402


class Box(torch.nn.Module):
    """Two outputs: the mean over a box of 5 x 3 x 1 (k, j, i) voxels, and twice that."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv3d(1, 2, (5, 3, 1), padding=(2, 1, 0), bias=False)
        self.convolution.weight.data[:] = 1 / 15
        self.convolution.weight.data[1] *= 2
        self.runs = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.convolution(image)


def box_package(**more: Any) -> FakePackage:
    return FakePackage("dnet", Box().eval(), (16, 16, 16), **more)


def test_the_reach_of_a_known_kernel_is_its_box_in_millimetres() -> None:
    volume = oblique_volume((40, 30, 24), (1.0, 1.5, 2.0))
    package = box_package()
    ras = volume.grid.ras_of((11.2, 14.9, 20.3))
    reach = volume_reach(volume, package, ras, "cpu", label=1)
    canonical = canonical_axes(volume.grid).apply_grid(volume.grid)
    np.testing.assert_allclose(reach.ras, volume.grid.ras_of((11, 15, 20)), atol=1e-9)
    lit = reach.volume.array > 0
    assert lit.sum() == 15
    np.testing.assert_allclose(reach.volume.array[lit], 2 / 15, rtol=1e-5)
    middle = reach.volume.grid.ras_of(np.argwhere(lit).mean(0)[::-1])
    np.testing.assert_allclose(middle, reach.ras, atol=1e-6)
    # Energy spread evenly over 1, 3 and 5 voxels along i, j, k of the canonical axes.
    for share, radii in reach.radii_mm.items():
        expected = np.array((1, 3, 5)) / 2 * share / 100 * np.array(canonical.spacing)
        np.testing.assert_allclose(radii, expected, rtol=1e-5)
    assert reach.passport["operator"].startswith("size of the gradient of logit 1")
    assert reach.theoretical_mm is None, "this network does not tell"
    json.dumps(reach.passport)
    assert "50 % within" in reach.sentence


def test_it_takes_one_pass_through_the_window_that_weighs_most_there() -> None:
    volume = plain_volume((40, 16, 16))
    package = box_package()
    reach = volume_reach(volume, package, (8.0, 8.0, 30.0), "cpu")
    assert package.network().runs == 2, "and one of the smallest window, to know the memory, the first time"
    volume_reach(volume, package, (8.0, 8.0, 30.0), "cpu")
    assert package.network().runs == 3
    low = reach.volume.grid.ras_of((0, 0, 0))[2]
    assert low + 7.5 == pytest.approx(30.0, abs=4.5), "its middle is the nearest to the place"


def test_the_energy_at_the_voxel_itself_is_within_half_a_voxel() -> None:
    energy = np.zeros((5, 5, 5))
    energy[2, 2, 2] = 3.0
    assert half_widths(energy, (2, 2, 2), plain_volume((5, 5, 5)).grid) == {50: (0.25,) * 3, 90: (0.45,) * 3}


@pytest.mark.parametrize("name", ["dnet", "rep3d"])
def test_the_gradient_stays_within_the_theoretical_field_and_is_that_of_finite_differences(name: str) -> None:
    network = tiny(name, **({"lrbm": "none"} if name == "rep3d" else {}))  # its masks are single precision
    volume = plain_volume((32, 32, 32))
    reach = volume_reach(volume, FakePackage(name, network), (16, 15, 14), "cpu", label=1)
    edge = theoretical_voxels(network)
    assert edge is not None and reach.theoretical_mm == ((edge - 1) / 2,) * 3
    assert all(0 < reach.radii_mm[50][axis] < reach.radii_mm[90][axis] <= 16.5 for axis in range(3))
    strongest = np.unravel_index(reach.volume.array.argmax(), reach.volume.array.shape)
    image = torch.from_numpy(volume.array)[None, None].double()
    double = network.double()
    step = torch.zeros_like(image)
    step[(0, 0, *strongest)] = 1e-5
    with torch.no_grad():
        slope = (double(image + step) - double(image - step))[0, 1, 14, 15, 16] / 2e-5
    assert float(slope.abs()) == pytest.approx(float(reach.volume.array.max()), rel=1e-2)


def click_session(window: int = 32) -> ClickModelSession:
    network = randomise(LKClick(in_channels=len(CHANNELS), feature_sizes=(8, 16, 16), depths=(1, 1, 1)))
    manifest = SimpleNamespace(
        name="random", network="lk_click", kind="click", in_channels=len(CHANNELS), out_channels=1,
        window=(window,) * 3, prompts={},
    )
    return ClickModelSession(
        oblique_volume((32, 36, 40)), SimpleNamespace(manifest=manifest, network=lambda device: network.eval())
    )


def test_the_reach_of_a_click_model_is_with_respect_to_the_image_after_the_clicks() -> None:
    session = click_session()
    centre = tuple(float(value) for value in session.volume.grid.centre_ras)
    points = [Point(centre)]
    reach = click_reach(session, points, centre)
    grid = session.state_for(points).window.window_grid
    assert reach.volume.grid == grid
    assert np.abs(grid.ijk_of(reach.ras) - grid.ijk_of(centre)).max() <= 0.5
    assert reach.theoretical_mm is not None and reach.theoretical_mm[0] > reach.radii_mm[90][0] > 0
    with pytest.raises(InputError, match="at least one click"):
        click_reach(session, [], centre)
    with pytest.raises(InputError, match="one output, 0, not 7"):
        click_reach(session, points, centre, label=7)


def test_bad_places_labels_and_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = plain_volume((20, 20, 20))
    with pytest.raises(InputError, match=r"RAS \(50, 0, 0\) mm lies outside the volume, which reaches over R 0 to 19"):
        volume_reach(volume, box_package(), (50, 0, 0), "cpu")
    with pytest.raises(InputError, match="outputs 0 to 1, not 2"):
        volume_reach(volume, box_package(), (5, 5, 5), "cpu", label=2)
    with pytest.raises(InputError, match="not 'liver'"):
        volume_reach(volume, box_package(), (5, 5, 5), "cpu", label="liver")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="points"):
        volume_reach(volume, box_package(kind="click"), (5, 5, 5), "cpu")
    deaf = box_package()
    deaf.network().convolution.weight.data.zero_()
    with pytest.raises(RunError, match="does not depend on the image"):
        volume_reach(volume, deaf, (5, 5, 5), "cpu")
    session = click_session()
    with pytest.raises(InputError, match="outside the volume"):
        click_reach(session, [Point(tuple(session.volume.grid.centre_ras))], (500, 0, 0))
    monkeypatch.setattr(gradients_module, "free_memory", lambda: 1)
    with pytest.raises(RunError, match="Its gradients need about"):
        volume_reach(plain_volume((40, 40, 40)), FakePackage("dnet", tiny("dnet"), (40, 40, 40)), (5, 5, 5), "cpu")


def test_a_mean_over_voxels_lies_where_they_are_and_has_the_half_widths_of_one() -> None:
    volume = plain_volume((40, 40, 40))
    package = FakePackage("dnet", Box().eval(), (32, 32, 32))
    one = volume_reach(volume, package, (20, 20, 20), "cpu", label=0)
    runs = package.network().runs
    mean = volume_reach(volume, package, (20, 20, 20), "cpu", label=0, around_mm=4.0, most_voxels=5)
    assert package.network().runs == runs + 1, "one way there, five back"
    assert mean.ras == one.ras and mean.volume.grid == one.volume.grid
    for share in (50, 90):  # a kernel is the same everywhere: the spread of the voxels must not widen it
        np.testing.assert_allclose(mean.radii_mm[share], one.radii_mm[share], rtol=1e-6)
    place = np.rint(mean.volume.grid.ijk_of(mean.ras)).astype(int)
    voxels = voxels_around(mean.volume.grid, tuple(place[::-1]), 4.0, 5)
    assert len(set(voxels)) == 5
    energy = np.zeros(mean.volume.grid.shape)
    for k, j, i in voxels:
        energy[k - 2 : k + 3, j - 1 : j + 2, i] += (1 / 15) ** 2 / 5
    np.testing.assert_allclose(mean.volume.array, np.sqrt(energy), rtol=1e-5, atol=1e-9)
    assert mean.passport["voxels"] == 5 and mean.passport["around mm"] == 4.0 and "mean energy" in mean.passport["mean"]
    assert "(mean of 5 voxels within 4 mm)" in mean.sentence and "mean of" not in one.sentence
    assert "voxels" not in one.passport
    json.dumps(mean.passport)


def test_voxels_around_a_place_lie_within_the_distance_also_on_oblique_grids() -> None:
    grid = oblique_volume((12, 14, 16), (1.0, 1.5, 2.5)).grid
    every = voxels_around(grid, (6, 7, 8), 3.2, 10_000)
    assert every[0] == (6, 7, 8) and len(set(every)) == len(every)
    inside = {
        (k, j, i)
        for k, j, i in np.ndindex(grid.shape)
        if np.linalg.norm(grid.ras_of((i, j, k)) - grid.ras_of((8, 7, 6))) <= 3.2
    }
    assert set(every) == inside and len(inside) > 20
    some = voxels_around(grid, (6, 7, 8), 3.2, 6)
    assert some == voxels_around(grid, (6, 7, 8), 3.2, 6) and len(some) == 6 and set(some) <= inside
    assert voxels_around(grid, (0, 0, 0), 0.1, 6) == [(0, 0, 0)] == voxels_around(grid, (0, 0, 0), None, 6)
    assert min(min(voxel) for voxel in voxels_around(grid, (0, 0, 0), 3.2, 10_000)) == 0
    for around, most in ((0.0, 3), (-1.0, 3), (float("nan"), 3), (2.0, 0)):
        with pytest.raises(InputError, match="at least one voxel within a distance above 0 mm"):
            voxels_around(grid, (6, 7, 8), around, most)


def test_the_mean_reach_of_a_click_model_is_the_mean_of_its_voxels() -> None:
    session = click_session(16)
    centre = tuple(float(value) for value in session.volume.grid.centre_ras)
    points = [Point(centre)]
    around = 1.5 * session.state_for(points).window.step
    mean = click_reach(session, points, centre, around_mm=around, most_voxels=3)
    grid = mean.volume.grid
    voxels = voxels_around(grid, tuple(np.rint(grid.ijk_of(centre)).astype(int)[::-1]), around, 3)
    singles = [click_reach(session, points, grid.ras_of(voxel[::-1])) for voxel in voxels]
    energy = np.mean([np.square(single.volume.array.astype(float)) for single in singles], axis=0)
    np.testing.assert_allclose(mean.volume.array, np.sqrt(energy), rtol=1e-3, atol=1e-7)
    assert mean.passport["voxels"] == 3 and "held fixed" in mean.passport


@pytest.mark.parametrize(
    ("name", "options", "window"),
    [
        ("monai_segresnet", {"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)}, (16, 16, 16)),
        ("monai_dynunet", {"levels": 3, "filters": (4, 4, 8)}, (16, 16, 16)),
        ("monai_attention_unet", {"channels": (4, 8)}, (16, 16, 16)),
        ("monai_unetr", {"img_size": (32, 48, 32), "feature_size": 4, "hidden_size": 24, "mlp_dim": 24, "num_heads": 2},
         (32, 48, 32)),
        ("monai_mednext", {"init_filters": 4, "kernel_size": 3}, (32, 32, 32)),
    ],
)  # fmt: skip
def test_networks_of_monai_have_a_reach_too(name: str, options: dict[str, Any], window: tuple[int, int, int]) -> None:
    for package_name in missing_packages(name):
        pytest.importorskip(package_name)
    torch.manual_seed(0)
    network = networks.create(name, in_channels=1, out_channels=2, **options).eval().requires_grad_(False)
    package = FakePackage(name, network, window)
    reach = volume_reach(plain_volume((40, 50, 36)), package, (16, 20, 20), "cpu", around_mm=2.0, most_voxels=2)
    assert 0 < reach.radii_mm[50][0] <= reach.radii_mm[90][0] and reach.volume.grid.contains(reach.ras)
    assert np.isfinite(reach.volume.array).all()


def test_a_network_of_one_window_size_is_measured_with_that() -> None:
    class Fixed(Box):
        exact_size = True

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            assert image.shape[2:] == (8, 48, 8)
            return super().forward(image)

    reach = volume_reach(plain_volume((8, 60, 8)), FakePackage("dnet", Fixed().eval(), (8, 48, 8)), (4, 30, 4), "cpu")
    assert int((reach.volume.array > 0).sum()) == 15
