"""Gradient-based maps: against MONAI's own Grad-CAM and against differences, for baselines and our networks alike."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

from inspection_support import FakePackage, oblique_volume, plain_volume, tiny  # noqa: E402
from monai.visualize import GradCAM  # noqa: E402
from networks_support import random_image, randomise  # noqa: E402

from LKSegmentLib import networks  # noqa: E402
from LKSegmentLib.errors import Cancelled, InputError  # noqa: E402
from LKSegmentLib.inspection.class_gradients import gradient_maps, gradient_names, is_gradient  # noqa: E402
from LKSegmentLib.inspection.upsampled_layers import upsampled_layers  # noqa: E402

CAM, TIMES = "class activation, organ", "gradient times image, organ"


def baseline() -> Any:
    return randomise(
        networks.create("monai_dynunet", in_channels=1, out_channels=2, levels=4, filters=(4, 8, 8, 8))
    ).requires_grad_(False)


class OfOneLabel(torch.nn.Module):
    """A network whose summed logits are the score: those of a label where the answer gives it, else 0."""

    def __init__(self, network: Any, output: int) -> None:
        super().__init__()
        self.network, self.output = network, output

    def forward(self, image: Any) -> Any:
        logits = self.network(image)
        return logits * (logits.argmax(1, keepdim=True) == self.output)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_class_activation_is_that_of_monai_on_the_same_layer() -> None:
    network = baseline()
    volume = plain_volume((32, 32, 32))
    (found,) = gradient_maps(volume, FakePackage("monai_dynunet", network), [CAM], "cpu")
    image = torch.from_numpy(volume.array)[None, None].requires_grad_()
    layer = "network.bottleneck"
    wanted = GradCAM(OfOneLabel(network, 1), layer).compute_map(image, class_idx=1)
    assert wanted.max() > 0
    np.testing.assert_allclose(found.volume.array, wanted[0, 0].detach().numpy(), rtol=1e-4, atol=1e-5)
    assert found.passport["native stride (working voxels)"] == 8 and found.passport["layer"].startswith("input of ")


def test_gradient_times_image_is_the_slope_of_the_score() -> None:
    """Brightening a part of the image by a factor 1 + t changes the score by t times the sum of the map there."""
    network = baseline()
    volume = plain_volume((16, 16, 16))
    (found,) = gradient_maps(volume, FakePackage("monai_dynunet", network, (16, 16, 16)), [TIMES], "cpu")
    network.double()
    image = torch.from_numpy(volume.array)[None, None].double()
    there = (network(image).argmax(1) == 1)[0]
    # A part: the instance norms of this network make it blind to the brightness of the whole.
    part = torch.zeros_like(image)
    part[0, 0, 3:9, :10, 5:] = 1

    def score(brighter: float) -> float:
        return float(network(image * (1 + brighter * part))[0, 1][there].sum())

    slope = (score(1e-5) - score(-1e-5)) / 2e-5
    assert abs(slope) > 1
    assert float(found.volume.array[3:9, :10, 5:].sum(dtype=np.float64)) == pytest.approx(slope, rel=1e-3)
    assert found.volume.array.min() < 0 < found.volume.array.max(), "it keeps its sign"


def test_a_window_without_the_label_shows_nothing() -> None:
    network = baseline()
    with torch.no_grad():
        network.get_submodule("output_block.conv.conv").bias[1] = -1e3
    for found in gradient_maps(plain_volume((32, 32, 32)), FakePackage("dyn", network), [CAM, TIMES], "cpu"):
        assert not found.volume.array.any()


def test_maps_of_several_windows_have_passports_and_companions_and_change_nothing() -> None:
    network = baseline()
    package = FakePackage("monai_dynunet", network)
    image = random_image(1, 1, 32, 32, 32)
    before = network(image)
    names = [CAM, "class activation 1/4, organ", TIMES]
    maps = gradient_maps(oblique_volume((40, 32, 44)), package, names, "cpu")
    assert torch.equal(before, network(image))
    assert not any(module._forward_pre_hooks for name, module in network.named_modules() if name)
    assert [found.name for found in maps[::2]] == names
    for found in maps:
        passport = json.loads(json.dumps(found.passport))
        assert {"kind", "unit", "range", "neutral", "identifiable", "sentence", "stitching", "output"} <= set(passport)
        assert np.isfinite(found.volume.array).all() and found.volume.array.dtype == np.float32
    assert [found.passport["kind"] for found in maps[:2]] == ["gradient", "disagreement of windows"]
    assert "sensitive" in maps[0].passport["sentence"]


@pytest.mark.parametrize(
    ("name", "offsets"),
    [
        ("dnet", {8: 0.0, 4: 1.5, 2: 0.5}),
        ("rep3d", {16: 7.0, 8: 3.5, 4: 1.5, 2: 0.5}),
        ("lka_unet", {32: 0.0, 16: 7.5, 8: 3.5, 4: 1.5, 2: 0.5}),
    ],
)
def test_the_place_of_what_is_handed_up_is_read_off_the_convolutions(name: str, offsets: dict[int, float]) -> None:
    found = upsampled_layers(tiny(name), torch.zeros(1, 1, *[64 if name == "lka_unet" else 32] * 3))
    assert {stride: layer.offset for stride, layer in found.items()} == offsets
    assert list(found) == sorted(offsets, reverse=True)


def test_names_are_offered_and_others_refused() -> None:
    package = FakePackage("monai_dynunet", baseline())
    assert gradient_names(package) == [CAM, TIMES] and all(is_gradient(name) for name in gradient_names(package))
    assert not is_gradient("LK attention, level 2") and not is_gradient("class activation")
    volume = plain_volume((32, 32, 32))
    for name in ("class activation, spleen", "gradient times image 1/4, organ"):
        with pytest.raises(InputError, match="no gradient map .*class activation, organ; gradient times image, organ"):
            gradient_maps(volume, package, [name], "cpu")
    with pytest.raises(InputError, match="hands maps up from 1/2, 1/4, 1/8, not from 1/16"):
        gradient_maps(volume, package, ["class activation 1/16, organ"], "cpu")
    with pytest.raises(InputError, match="clicks"):
        gradient_maps(volume, FakePackage("lk_click", baseline(), kind="click"), [CAM], "cpu")
    with pytest.raises(Cancelled):
        gradient_maps(volume, package, [CAM], "cpu", cancelled=lambda: True)


def test_a_network_of_slices_has_no_class_activation() -> None:
    flat = torch.nn.Conv3d(1, 2, 1)
    with pytest.raises(InputError, match="hands maps of three dimensions up"):
        gradient_maps(plain_volume((16, 16, 16)), FakePackage("flat", flat, (16, 16, 16)), [CAM], "cpu")
