"""What runs on a GPU answers as the CPU does: operators, networks, segmentation, clicks, inspection.

Skipped where there is no CUDA. LKSEGMENT_TEST_DEVICE=cpu runs the same checks with the CPU on both sides. Only torch,
numpy, scipy, safetensors and SimpleITK are needed; the networks of MONAI are skipped where it is not installed.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inspection_support import TINY, oblique_volume, plain_volume, saved_tiny_package, tiny
from networks_support import random_image, randomise
from torch import Tensor, nn

import LKSegmentLib as lk
from LKSegmentLib import networks, packages
from LKSegmentLib.inspection.click_maps import EXPOSED
from LKSegmentLib.networks import registry
from LKSegmentLib.operators import PointwiseConv3d, depthwise_conv3d, depthwise_cuda, packed
from LKSegmentLib.volumes import Volume

DEVICE = os.environ.get("LKSEGMENT_TEST_DEVICE", "cuda")
ON_GPU = DEVICE.startswith("cuda")
WITH_TRITON = importlib.util.find_spec("triton") is not None and (ON_GPU or "TRITON_INTERPRET" in os.environ)

pytestmark = pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="there is no GPU with CUDA here")


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """Without TF32, whose mantissa of 10 bits would hide an error in the third digit."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def error(found: Tensor, exact: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    assert found.device.type == torch.device(DEVICE).type, f"the answer lies on {found.device}"
    assert found.shape == exact.shape
    wanted = exact.detach().cpu().double()
    return float((found.detach().cpu().double() - wanted).abs().max() / wanted.abs().max())


# Operators --------------------------------------------------------------------------------------------------

# (kernel, dilation, map): dense, dilated, larger than the map, not cubic; maps of several tiles of the Triton kernel.
DEPTHWISE = [
    ((3, 3, 3), 1, (9, 10, 35)),
    ((5, 5, 5), 1, (11, 20, 34)),
    ((7, 7, 7), 1, (16, 16, 16)),
    ((7, 7, 7), 3, (20, 21, 40)),
    ((7, 7, 7), 3, (3, 4, 5)),
    ((21, 21, 21), 1, (24, 24, 24)),
    ((21, 21, 21), 1, (2, 3, 4)),
    ((3, 5, 1), 2, (6, 7, 33)),
]


def depthwise_case(edges: tuple[int, ...], size: tuple[int, ...], channels: int = 6) -> list[Tensor]:
    """Image, weight, bias and what flows back, in single precision on the CPU."""
    generator = torch.Generator().manual_seed(sum(edges))
    shapes = ((2, channels, *size), (channels, 1, *edges), (channels,), (2, channels, *size))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def depthwise_gradients(
    given: list[Tensor], dilation: int, to: Callable[[Tensor], Tensor], **how: Any
) -> list[Tensor]:
    """The answer, and the gradients of image, weight and bias."""
    image, weight, bias = (to(tensor).requires_grad_() for tensor in given[:3])
    answer = depthwise_conv3d(image, weight, bias, dilation, **how)
    return [answer, *torch.autograd.grad(answer, (image, weight, bias), to(given[3]))]


@pytest.mark.parametrize("method", ["auto", "direct", "fft", "triton"])
@pytest.mark.parametrize(("edges", "dilation", "size"), DEPTHWISE)
def test_depthwise_forward_and_gradients(
    edges: tuple[int, ...], dilation: int, size: tuple[int, ...], method: str
) -> None:
    if method == "fft" and dilation > 1:
        pytest.skip("the transform is for dense kernels")
    if method == "triton" and not WITH_TRITON:
        pytest.skip("triton is not installed or cannot run here")
    given = depthwise_case(edges, size)
    exact = depthwise_gradients(given, dilation, Tensor.double)
    found = depthwise_gradients(given, dilation, lambda tensor: tensor.to(DEVICE, copy=True), method=method)
    # Sums of up to 9,261 products, or of 27,648 voxels for a weight, in single precision: 1e-7 times the root of that.
    for name, mine, wanted in zip(("answer", "image", "weight", "bias"), found, exact, strict=True):
        assert error(mine, wanted) < 2e-5, name


# What "auto" takes on CUDA: (kernel, dilation, map, method); maps not cubic, of several tiles.
AUTO = [
    (5, 1, (24, 26, 40), "triton"),
    (7, 3, (25, 24, 33), "triton"),
    (21, 1, (24, 24, 25), "fft"),
    (3, 1, (24, 24, 24), "library"),
    (7, 3, (24, 24, 9), "library"),
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize(("edge", "dilation", "size", "method"), AUTO)
def test_auto_takes_what_is_fastest_and_answers_as_double_precision(
    edge: int, dilation: int, size: tuple[int, ...], method: str, layout: torch.memory_format
) -> None:
    image, weight, bias = depthwise_case((edge,) * 3, size)[:3]
    exact = depthwise_conv3d(image.double(), weight.double(), bias.double(), dilation)
    there = [tensor.to(DEVICE) for tensor in (image.contiguous(memory_format=layout), weight, bias)]
    if ON_GPU and torch.version.hip is None and (method != "triton" or WITH_TRITON):
        assert depthwise_cuda.chosen(*there, dilation) == method
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("error", RuntimeWarning)  # Triton runs, or is not installed
        assert error(depthwise_conv3d(*there, dilation), exact) < 2e-5


# Rounded once to the number type, half a unit in the last place; sums are in single precision.
TYPES = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}
FEW = [DEPTHWISE[3], DEPTHWISE[7]]  # every combination is compiled anew


@pytest.mark.skipif(not WITH_TRITON, reason="triton is not installed or cannot run here")
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("edges", "dilation", "size"), DEPTHWISE)
def test_triton_in_every_number_type(
    edges: tuple[int, ...], dilation: int, size: tuple[int, ...], dtype: torch.dtype
) -> None:
    if dtype == torch.bfloat16 and (edges, dilation, size) not in FEW:
        pytest.skip("half precision of the other kind takes the same way")
    image, weight, bias = (tensor.to(dtype) for tensor in depthwise_case(edges, size)[:3])
    there = [tensor.to(DEVICE) for tensor in (image, weight, bias)]
    exact = depthwise_conv3d(image.double(), weight.double(), bias.double(), dilation)
    last = there[0].contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        for given in (there[0], last):
            answer = depthwise_conv3d(given, *there[1:], dilation, method="triton")
            assert answer.dtype == dtype
            assert error(answer, exact) < TYPES[dtype]
        if dtype == torch.float32:
            library = depthwise_conv3d(*there, dilation, method="library")
            assert error(answer, library) < 2e-5
            without = depthwise_conv3d(there[0], there[1], None, dilation, method="triton")
            assert error(without, exact - bias.double().view(-1, 1, 1, 1)) < TYPES[dtype]


@pytest.mark.skipif(not WITH_TRITON, reason="triton is not installed or cannot run here")
@pytest.mark.parametrize("edge", [5, 7, 9])
def test_triton_trains_in_half_precision(edge: int) -> None:
    given = [tensor.half() for tensor in depthwise_case((edge,) * 3, (9, 10, 11))]
    exact = depthwise_gradients(given, 1, Tensor.double)
    found = depthwise_gradients(given, 1, lambda tensor: tensor.to(DEVICE, copy=True), method="triton")
    for mine, wanted in zip(found, exact, strict=True):
        assert mine.dtype == torch.float16
        assert error(mine, wanted) < 2e-3


@pytest.mark.skipif(not ON_GPU, reason="this is about CUDA's autocast")
def test_depthwise_under_autocast_answers_in_half_precision() -> None:
    image, weight, bias, back = (tensor.to(DEVICE) for tensor in depthwise_case((7, 7, 7), (12, 12, 12)))
    weight.requires_grad_()
    with torch.autocast("cuda", torch.bfloat16):
        answer = depthwise_conv3d(image, weight, bias, 3)
    assert answer.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(answer, weight, back.bfloat16())
    assert gradient.dtype == torch.float32
    assert error(answer, depthwise_conv3d(image.cpu(), weight.cpu(), bias.cpu(), 3)) < 0.02


def test_pointwise_forward_and_gradients() -> None:
    layer, image = randomise(PointwiseConv3d(24, 40)), random_image(2, 24, 9, 10, 11)
    results = {}
    for device, to in (("cpu", torch.float64), (DEVICE, torch.float32)):
        key = "exact" if to == torch.float64 else "found"
        there, given = PointwiseConv3d(24, 40).to(device, to), image.to(device, to, copy=True).requires_grad_()
        there.load_state_dict(layer.state_dict())
        answer = there(given)
        weights = tuple(there.parameters())
        results[key] = [answer, *torch.autograd.grad(answer.square().mean(), (given, *weights))]
    for mine, wanted in zip(results["found"], results["exact"], strict=True):
        assert error(mine, wanted) < 1e-5


@pytest.mark.parametrize("activation", [packed.NOTHING, packed.GELU, packed.Activation("leaky_relu", 0.1)], ids=str)
def test_packed_convolutions(activation: packed.Activation) -> None:
    x, add = random_image(7, 8, 9, 6), random_image(7, 8, 9, 5)
    weight, bias = random_image(5, 6, 3, 3, 3), random_image(5)
    single, across, channels = random_image(6, 1, 3, 3, 3), random_image(6, 5, 2, 2, 2), random_image(6)

    def answers(to: Callable[[Tensor], Tensor]) -> list[Tensor]:
        dense = packed.PackedConvolution(to(weight), to(bias), 2, (1, 1, 1), activation=activation)
        grouped = packed.PackedConvolution(to(single), to(channels), 1, (1, 1, 1), 6, activation)
        pointwise = packed.PackedPointwise(to(weight[:, :, 0, 0, 0]), to(bias), activation)
        doubling = packed.PackedDoubling(to(across), to(bias))
        transposed = packed.PackedTransposed(to(across), to(bias), 2, (0, 1, 0))
        given = to(x)
        return [dense(given), grouped(given), pointwise(given), pointwise(given, to(add)), doubling(given),
                doubling.mean(given.mean((0, 1, 2))), transposed(given)]  # fmt: skip

    with torch.inference_mode():
        for mine, wanted in zip(answers(lambda tensor: tensor.to(DEVICE)), answers(Tensor.double), strict=True):
            assert error(mine, wanted) < 1e-5


# Networks ---------------------------------------------------------------------------------------------------

SMALL: dict[str, dict[str, Any]] = {
    **TINY,
    "msa2net": {},
    "lk_click": {"feature_sizes": (8, 8, 16), "depths": (1, 1, 1)},
    "monai_attention_unet": {"channels": (8, 8, 16)},
    "monai_dynunet": {"levels": 3, "filters": (8, 8, 16)},
    "monai_mednext": {"init_filters": 4},
    "monai_segresnet": {"init_filters": 8},
    "monai_swin_unetr": {"feature_size": 12},
    "monai_unetr": {"img_size": (32, 32, 32), "feature_size": 8},
}
GATED = ("dnet", "dlknetr", "lka_unet", "lk_click")


def small(name: str) -> nn.Module:
    known = networks.options(name)
    wanted = {key: value for key, value in SMALL.get(name, {}).items() if key in known}
    channels = {} if name == "lk_click" else {"in_channels": 1, "out_channels": 2}
    return randomise(networks.create(name, **{**channels, **wanted})).requires_grad_(False)


def window_for(name: str, network: Any) -> Tensor:
    edge = max(16, int(network.minimum_size))
    size = (2, 40, 48) if name == "msa2net" else (edge, edge + (name != "monai_unetr") * network.size_multiple, edge)
    return random_image(1, int(getattr(network, "in_channels", 9 if name == "lk_click" else 1)), *size)


def first_of(answer: Any) -> Tensor:
    found: Tensor = answer[0] if isinstance(answer, (list, tuple)) else answer
    return found


@pytest.mark.parametrize("name", networks.names())
def test_networks_answer_as_on_the_cpu(name: str) -> None:
    if missing := registry.missing_packages(name):
        pytest.skip(f"{name} needs {', '.join(missing)}")
    network = small(name)
    image = window_for(name, network)
    with torch.inference_mode():
        single = first_of(network(image))
        exact = first_of(network.double()(image.double()))
        network = network.float().to(DEVICE)
        # How much a network makes of a rounding in its depth, the CPU's own single precision tells. A GPU adds in
        # another order, and convolutions by Winograd's or Fourier's transform round some ten times coarser.
        allowed = max(1e-4, 20 * float((single - exact).abs().max() / exact.abs().max()))
        assert allowed < 0.01, "this check would find nothing"
        assert error(first_of(network(image.to(DEVICE))), exact) < allowed
        with networks.prepare_for_inference(network) as prepared:
            assert error(first_of(prepared(image.to(DEVICE))), exact) < allowed
        with networks.prepare_for_inference(network, dtype=torch.bfloat16) as coarse:
            # 8 bits of mantissa: on the CPU these networks differ by 1 to 10 % of the largest logit.
            assert error(first_of(coarse(image.to(DEVICE))), exact) < 0.25


@pytest.mark.parametrize("name", GATED)
def test_a_training_step_has_the_cpus_gradients(name: str) -> None:
    gradients = {}
    for device, dtype in (("cpu", torch.float64), ("cpu", torch.float32), (DEVICE, torch.float32)):
        network = small(name).requires_grad_(True).to(device, dtype)
        image = window_for(name, network).to(device, dtype)
        first_of(network(image)).square().mean().backward()
        found = [one.grad.cpu().double().flatten() for one in network.parameters() if one.grad is not None]
        gradients[device if len(gradients) else "exact", dtype] = torch.cat(found)
    exact = gradients["exact", torch.float64]
    single, there = (
        float((gradients[device, torch.float32] - exact).norm() / exact.norm()) for device in ("cpu", DEVICE)
    )
    assert there < max(1e-4, 20 * single) < 0.01


# Whole volumes ----------------------------------------------------------------------------------------------


def same_share(found: Volume, wanted: Volume) -> float:
    assert found.grid == wanted.grid
    return float((found.array == wanted.array).mean())


@pytest.mark.parametrize("name", ["dnet", "lka_unet", "dalight3d"])
@pytest.mark.parametrize("spacing", [None, (1.5, 1.5, 1.5)], ids=["own voxels", "resampled"])
def test_a_volume_gets_the_same_labels(name: str, spacing: tuple[float, float, float] | None, tmp_path: Path) -> None:
    volume = oblique_volume((30, 36, 40))
    package = packages.save(
        tmp_path / name, network=name, options={**TINY[name]}, state_dict=tiny(name).state_dict(), labels=["organ"],
        window=(16, 24, 24), spacing=spacing, intensity={"rule": "zscore"}, licence="CC0-1.0",
    )  # fmt: skip
    wanted = lk.segment(volume, package, device="cpu").labels
    found = lk.segment(volume, package, device=DEVICE).labels
    assert 0.01 < float((wanted.array > 0).mean()) < 0.99, "this check would find nothing"
    assert same_share(found, wanted) >= 0.999  # where two logits are equal, a rounding decides


# Clicks -----------------------------------------------------------------------------------------------------

CLICKS = (((40.0, 40.0, 36.0), True), ((50.0, 40.0, 36.0), True), ((40.0, 58.0, 36.0), False))


def ball() -> Volume:
    """A bright ball of 16 mm in noise."""
    places = np.indices((72, 80, 80)).astype(np.float32)
    inside = np.square(places - np.array([36, 40, 40]).reshape(3, 1, 1, 1)).sum(0) < 16**2
    noise = np.random.default_rng(0).normal(scale=10, size=inside.shape)
    return Volume((60 + 40 * inside + noise).astype(np.float32), np.eye(4))


def clicked(device: str) -> list[Any]:
    with lk.ClickSession(ball(), device=device) as session:
        return [session.add_point(ras, positive) for ras, positive in CLICKS]


@functools.cache
def clicked_on_the_cpu() -> list[Any]:
    return clicked("cpu")


@pytest.mark.parametrize("tf32", [False, True], ids=["full precision", "as torch comes"])
def test_clicks_give_the_same_masks(tf32: bool) -> None:
    torch.backends.cudnn.allow_tf32 = tf32
    for number, (mine, wanted) in enumerate(zip(clicked(DEVICE), clicked_on_the_cpu(), strict=True), 1):
        assert wanted.sum() > 1000
        different = int((mine != wanted).sum())
        # On the surface some logits are nearly 0. With TF32, torch's default for convolutions, they move by 0.1 %.
        assert different <= (0.02 if tf32 else 0.001) * wanted.sum(), f"after click {number}: {different} voxels"


# Inspection -------------------------------------------------------------------------------------------------


def assert_same_maps(found: list[Any], wanted: list[Any]) -> None:
    assert [one.name for one in found] == [one.name for one in wanted] and wanted
    for mine, reference in zip(found, wanted, strict=True):
        assert mine.volume.grid == reference.volume.grid and mine.volume.array.dtype == reference.volume.array.dtype
        largest = float(np.abs(reference.volume.array).max())
        difference = float(np.abs(mine.volume.array - reference.volume.array).max())
        assert difference <= 2e-3 * max(largest, 1e-6), f"{reference.name}: {difference:.1e} of {largest:.1e}"


@pytest.mark.parametrize("name", TINY)
def test_maps_of_a_volume(name: str, tmp_path: Path) -> None:
    package = saved_tiny_package(tmp_path / name, name)
    volume = plain_volume((32, 36, 40))
    wanted_labels, wanted = lk.inspect(volume, package, device="cpu")
    labels, found = lk.inspect(volume, package, device=DEVICE)
    assert same_share(labels, wanted_labels) >= 0.999
    assert np.array_equal(labels.array, lk.segment(volume, package, device=DEVICE).labels.array), "recording changed it"
    assert_same_maps(found, wanted)


def test_gradient_maps_and_reach_of_a_volume(tmp_path: Path) -> None:
    package, volume = saved_tiny_package(tmp_path / "dnet"), plain_volume((16, 24, 24))
    layers = ["class activation, organ", "gradient times image, organ"]
    assert_same_maps(*(lk.inspect(volume, package, layers, device=device)[1] for device in (DEVICE, "cpu")))
    mine, wanted = (lk.reach(volume, package, device=device, label=1) for device in (DEVICE, "cpu"))
    np.testing.assert_allclose(mine.volume.array, wanted.volume.array, atol=1e-3 * float(wanted.volume.array.max()))
    for share, radii in wanted.radii_mm.items():
        assert mine.radii_mm[share] == pytest.approx(radii, rel=0.01)


def test_maps_and_reach_of_a_click() -> None:
    layers, points = [entry.name for entry in EXPOSED], CLICKS[:1]
    both = [lk.inspect(ball(), layers=layers, points=points, device=device) for device in (DEVICE, "cpu")]
    masks, maps = zip(*both, strict=True)
    assert same_share(*masks) >= 0.999
    # Which channel lies closest to the mask is a matter of ranks: two channels may change places.
    assert_same_maps(*([one for one in found if "closest" not in one.name] for found in maps))
    mine, wanted = (lk.reach(ball(), points=points, device=device) for device in (DEVICE, "cpu"))
    assert math.isfinite(mine.radii_mm[50][0])
    for share, radii in wanted.radii_mm.items():
        assert mine.radii_mm[share] == pytest.approx(radii, rel=0.02)
