"""The counter-examples of docs/inspection.md, computed anew and held against the numbers printed there.

    pytest -s Testing/Unit/test_inspection_counter_examples.py

prints them as they stand in the page.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inspection_support import FakePackage, plain_volume, tiny  # noqa: E402
from networks_support import random_image  # noqa: E402

from LKSegmentLib import networks  # noqa: E402
from LKSegmentLib.inference.clicks import ClickModelSession  # noqa: E402
from LKSegmentLib.inspection.click_maps import click_maps  # noqa: E402
from LKSegmentLib.inspection.kernel_pictures import network_tables_and_maps  # noqa: E402
from LKSegmentLib.inspection.volume_maps import inspect_volume  # noqa: E402
from LKSegmentLib.packages.catalogue import built_in_folder  # noqa: E402
from LKSegmentLib.packages.store import load  # noqa: E402
from LKSegmentLib.prompts import Point  # noqa: E402
from LKSegmentLib.volumes import Volume  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "inspection.md"
ROW = re.compile(r"^ *\| (?P<name>[^|]+) \| (?P<value>-?\d[\d.]*) \|$", re.MULTILINE)


def exchanged_spatial_maps() -> dict[str, float]:
    """How much the logits of a small random D-Net change when w1 and w2 change places."""
    found = {}
    for selection in ("sum", "per_kernel"):
        network = tiny("dnet", selection=selection)
        image = random_image(1, 1, 32, 32, 32)
        with torch.inference_mode():
            before = network(image)
            for module in network.modules():
                if hasattr(module, "spatial_se"):
                    for tensor in module.spatial_se[0].parameters():
                        tensor.copy_(tensor.flip(0))
            change = network(image) - before
        found[f"w1 and w2 exchanged, `{selection}`: largest change of a logit"] = float(change.abs().max())
        found[f"standard deviation of the logits, `{selection}`"] = float(before.std())
    return found


@cache
def attention_on_noise() -> dict[str, float]:
    """The LK attention of lk_click on a phantom and on pure noise, clicked at the same place."""
    generator = np.random.default_rng(0)
    away = (np.indices((48, 48, 48)) - np.array((24, 22, 26)).reshape(3, 1, 1, 1)) / np.array((11, 9, 13)).reshape(
        3, 1, 1, 1
    )
    noise = generator.normal(0, 60, (48, 48, 48)).astype(np.float32)
    phantom = np.where((away**2).sum(0) < 1, 120, -40).astype(np.float32) + noise / 4
    found = {}
    for name, array in (("a phantom", phantom), ("noise", noise)):
        session = ClickModelSession(Volume(array, np.diag((3.0, 3.0, 3.0, 1.0))), load(built_in_folder() / "lk_click"))
        maps = click_maps(
            session,
            [Point((78.0, 66.0, 72.0))],
            ["LK attention (mean)", "LK attention (channel closest to the mask)"],
        )
        values = maps[0].volume.array
        found[f"LK attention on {name}: least"] = float(values.min())
        found[f"LK attention on {name}: median"] = float(np.median(values))
        found[f"LK attention on {name}: largest"] = float(values.max())
        found[f"best channel on {name}: area under the ROC curve"] = float(maps[1].passport["area under ROC"])
    return found


def weights_of_lk_click() -> str:
    """The first digits of the hash of the shipped weights."""
    return load(built_in_folder() / "lk_click").manifest.files["weights.safetensors"].sha256[:12]


def borders_of_windows() -> dict[str, float]:
    """The map of a volume of zeros: nothing is there, and the map has structure all the same."""
    torch.manual_seed(0)
    network = networks.create("lka_unet", in_channels=1, out_channels=2, variant="mid", feature_sizes=(4, 8, 16, 16))
    package = FakePackage("lka_unet", network.eval(), (32, 32, 32))
    volume = plain_volume((48, 48, 48))
    _, (attention, disagreement) = inspect_volume(
        volume.with_array(np.zeros((48, 48, 48), np.float32)), package, ["LK attention, level 2 #3"], "cpu"
    )
    return {
        "attention of an empty volume: least": float(attention.volume.array.min()),
        "attention of an empty volume: largest": float(attention.volume.array.max()),
        "windows of an empty volume: largest disagreement": float(disagreement.volume.array.max()),
    }


def collapsed_masks() -> dict[str, float]:
    """Rep3D's mask when its norms act on single elements, and its kernel when the mask is stored back at every run."""
    sizes: dict[str, Any] = {"depths": (1, 1, 1, 1), "feature_sizes": (4, 4, 4, 4), "hidden_size": 8}
    torch.manual_seed(0)
    network = networks.create("rep3d", in_channels=1, out_channels=2, **sizes)
    block = network.rep3d.stages[0][0]
    found = {}
    with torch.no_grad():
        # Norms of one element answer with their shift whatever they are given: what the released generator does.
        block.norm_w2.weight.zero_()
        block.norm_w2.bias.fill_(0.2)
        learned = block.mask() - block.prior()
        found["spread of a collapsed mask's learned part over the taps"] = float(learned.std())
        block.lrbm = "none"
        for runs in (0, 1, 6):
            kernel = block.dwconv.weight.clone()
            block.dwconv.weight.mul_(block.prior() ** runs)
            _, (table,) = network_tables_and_maps(network, (1.5, 1.5, 1.5), ["large kernels"])
            row = dict(zip(table.columns, table.rows[0], strict=True))
            found[f"energy within 3³ of a 21³ kernel after {runs} masked runs"] = float(row["energy within 3³"])
            block.dwconv.weight.copy_(kernel)
    return found


def test_attention_on_noise_looks_like_attention_on_anatomy() -> None:
    """The claim itself, of whatever weights are shipped."""
    found = attention_on_noise()
    for what in ("least", "median", "largest"):
        assert abs(found[f"LK attention on noise: {what}"] - found[f"LK attention on a phantom: {what}"]) < 0.05
    best = [found[f"best channel on {name}: area under the ROC curve"] for name in ("a phantom", "noise")]
    assert abs(best[0] - best[1]) < 0.1 < min(best) - 0.5


@pytest.mark.parametrize("example", [exchanged_spatial_maps, attention_on_noise, borders_of_windows, collapsed_masks])
def test_the_numbers_of_the_page_are_those_of_the_counter_example(example: Any) -> None:
    page = PAGE.read_text(encoding="utf-8")
    if example is attention_on_noise and weights_of_lk_click() not in page:
        pytest.skip(f"the page tells of other weights of lk_click than these, {weights_of_lk_click()}")
    printed = {match["name"]: match["value"] for match in ROW.finditer(page)}
    for name, value in example().items():
        print(f"| {name} | {value:.3f} |")
        assert name in printed, f"docs/inspection.md does not tell: {name}"
        # Three decimals; other processors round the last one otherwise.
        assert float(printed[name]) == pytest.approx(value, abs=0.003), name
