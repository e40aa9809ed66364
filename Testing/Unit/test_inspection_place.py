"""Where every map lies, measured: what an impulse lights in it, and what one of its voxels lights in the answer.

What could blur the measurement is taken out of the networks, and nothing that moves anything: norms and pools over the
window are passed by, kernels of stride 1 keep their centre tap, strided ones become tents and those of 2³ blocks. What
is left is linear for a small impulse, and the centre of its response is exact.

The law that the tests hold every map to:

- an encoder's map is centred where its voxels say;
- a decoder's voxel acts on the answer exactly where it is said to lie: on the block of voxels that it is expanded to;
- an impulse lands in a decoder's map within one of its voxels, by the finest path that leads there. Strided
  convolutions centre voxel m on m·S, the way up expands it to the block from m·S on, so every path by an encoder of
  stride S moves what it carries by (S - 1) / 2 voxels: that is the network, in its answer no less than in its maps.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inspection_support import FakePackage, local_only, oblique_volume, plain_volume, tiny  # noqa: E402
from networks_support import randomise  # noqa: E402

from LKSegmentLib import networks  # noqa: E402
from LKSegmentLib.inspection.by_network import exposed  # noqa: E402
from LKSegmentLib.inspection.exposed import Chosen, Exposed  # noqa: E402
from LKSegmentLib.inspection.upsampled_layers import upsampled_layers  # noqa: E402
from LKSegmentLib.inspection.volume_maps import inspect_volume  # noqa: E402
from LKSegmentLib.networks.blocks.cross_slice import CrossSliceAttention  # noqa: E402
from LKSegmentLib.networks.blocks.dynamic_large_kernel import DynamicLargeKernel  # noqa: E402
from LKSegmentLib.networks.blocks.feature_fusion import DynamicFeatureFusion  # noqa: E402
from LKSegmentLib.networks.blocks.layer_norm import ChannelLayerNorm  # noqa: E402
from LKSegmentLib.networks.blocks.lightweight import IdentifierNorm, SqueezeExcite  # noqa: E402
from LKSegmentLib.networks.blocks.receptive_bias import ReceptiveBiasConv3d  # noqa: E402
from LKSegmentLib.networks.blocks.skip_fusion import ChannelGate  # noqa: E402
from LKSegmentLib.volumes import canonical_axes  # noqa: E402

PASSED_BY = (
    ChannelLayerNorm, IdentifierNorm, torch.nn.GroupNorm, torch.nn.InstanceNorm3d, torch.nn.BatchNorm3d,
    CrossSliceAttention, torch.nn.GELU,
)  # fmt: skip

SMALL: dict[str, dict[str, Any]] = {
    "dnet": {},
    "dlknetr": {},
    "lka_unet": {"feature_sizes": (4, 4, 8, 8), "attention": {0: (15, 3), 1: (9, 3), 2: (6, 2)}},
    "rep3d": {},
    "dalight3d": {},
    "lk_click": {"feature_sizes": (8, 8, 8), "depths": (1, 1, 1)},
}
BASELINES: dict[str, dict[str, Any]] = {
    "monai_dynunet": {"levels": 4, "filters": (4, 4, 4, 4)},
    "monai_segresnet": {"init_filters": 8},
}
EDGE = {"dnet": 32, "dlknetr": 64, "lka_unet": 48, "rep3d": 48, "dalight3d": 32, "lk_click": 32}
EPSILON = 1e-4


def shifting_only(name: str) -> Any:
    """The network, double precision, with nothing left in it but what moves things."""
    if name in BASELINES:
        pytest.importorskip("monai")
        network = randomise(networks.create(name, **BASELINES[name])).requires_grad_(False)
    elif name == "lk_click":
        network = randomise(networks.create(name, **SMALL[name])).requires_grad_(False)
    else:
        network = tiny(name, **SMALL[name])
    passed_by = MethodType(lambda module, x, *others: x, network)
    for module in network.modules():
        if isinstance(module, PASSED_BY):
            module.forward = passed_by
        elif isinstance(module, torch.nn.LeakyReLU):
            module.negative_slope = 0.9
        elif isinstance(module, ReceptiveBiasConv3d):
            only_moves(module.dwconv)
            module.lrbm = "none"
        elif isinstance(module, DynamicLargeKernel | DynamicFeatureFusion):
            module.conv_atten.forward = lambda x: torch.full_like(x, 0.5)
        elif isinstance(module, SqueezeExcite):
            module.fc.forward = lambda x: torch.full_like(x, 0.5)
        elif isinstance(module, ChannelGate):
            module.fc.forward = lambda x: torch.full_like(x[:, : x.shape[1] // 2], 0.5)
        elif isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            only_moves(module)
    if name == "lk_click":  # the eight voxels of a block are answered alike, so that its middle shows
        head = network.head[0]
        head.weight.copy_(head.weight[:1].expand_as(head.weight).clone())
    return network.double()


def only_moves(convolution: Any) -> None:
    weight, edge = convolution.weight, convolution.weight.shape[-1]
    middle = edge // 2
    # Larger than one tap, so that what goes in comes out.
    value = weight[..., middle : middle + 1, middle : middle + 1, middle : middle + 1] * edge
    if edge % 2 and max(convolution.stride) == 1:  # the centre tap alone, as a kernel of 1³
        convolution.weight = torch.nn.Parameter(value, requires_grad=False)
        convolution.kernel_size, convolution.padding, convolution.dilation = (1, 1, 1), (0, 0, 0), (1, 1, 1)
        return
    # Means: values stay of one size, and no sigmoid far from the middle of its range.
    transposed = isinstance(convolution, torch.nn.ConvTranspose3d)
    along = torch.full((edge,), 1.0 if transposed and edge == 2 else 0.5)
    if edge % 2:
        along[:] = 0
        along[middle - 1 : middle + 2] = torch.tensor([0.25, 0.5, 0.25])
    weight.copy_(value * along[:, None, None] * along[:, None] * along)


def entries(network: Any) -> list[Exposed]:
    return [entry for entry in exposed(network) if entry.extent == "voxels"]


def on_the_way_up(entry: Exposed) -> bool:
    """Whether it is a map of the decoder (the answer's uncertainty too); the others are heard, not expanded."""
    return not ("encoder" in entry.name or "salience" in entry.name)


def finest_path(entry: Exposed) -> int:
    """The least stride of an encoder's map that reaches a decoder's map: that of its skip, or of what came up."""
    from_below = entry.name.startswith(("LK attention", "fusion gate from the decoder", "skip-fusion query map"))
    return 2 * entry.stride if from_below else entry.stride


def centre(change: Any) -> list[float]:
    """Of a change (k, j, i) over a background that is the same everywhere."""
    change = change - change.median()
    assert float(change.abs().max()) > 0, "nothing arrived"
    found = []
    for axis, length in enumerate(change.shape):
        profile = change.sum(tuple(other for other in range(3) if other != axis))
        profile[profile.abs() < 0.01 * profile.abs().max()] = 0
        found.append(float((profile * torch.arange(length)).sum() / profile.sum()))
    return found


def response(network: Any, image: Any, hit: Any, chosen: list[Chosen]) -> dict[str, Any]:
    """Change of each map between two images, in double precision."""
    found: list[dict[str, Any]] = []
    outputs: dict[str, Any] = {}

    def keep(layer: str) -> Any:
        return lambda module, inputs, output: outputs.__setitem__(layer, output)

    layers = dict.fromkeys(layer for one in chosen for layer in one.exposed.layers)
    handles = [network.get_submodule(layer).register_forward_hook(keep(layer)) for layer in layers]
    for given in (image, hit):
        network(given)
        every = {one.name: one.exposed.read([outputs[layer] for layer in one.exposed.layers]) for one in chosen}
        found.append({one.name: every[one.name][one.channel or 0] for one in chosen})
    for handle in handles:
        handle.remove()
    return {name: found[1][name].double() - found[0][name].double() for name in found[0]}


def image_of(network: Any, name: str) -> Any:
    channels = 12 if name == "lk_click" else 1
    return torch.ones(1, channels, *[EDGE.get(name, 32)] * 3, dtype=torch.float64)


@pytest.mark.parametrize("name", SMALL)
def test_an_impulse_is_centred_in_every_map_where_the_law_says_and_within_one_of_its_voxels(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # as small a change would be lost in rounding
    network = shifting_only(name)
    image = image_of(network, name)
    layers = upsampled_layers(network, image)
    pending = entries(network)
    place = [EDGE[name] // 2 + 3, EDGE[name] // 2, EDGE[name] // 2 - 3]
    hit = image.clone()
    hit[(0, slice(None), *place)] += EPSILON
    seen = 0
    # From the coarsest path to the finest: what came by coarser ones is silenced on the way.
    for path in sorted({finest_path(entry) for entry in pending}, reverse=True):
        for stride, layer in layers.items():
            if stride > path:
                up = network.get_submodule(layer.layer)
                for tensor in up.parameters():
                    tensor.zero_()
        chosen = [Chosen(entry, 1 if entry.channels > 1 else None) for entry in pending if finest_path(entry) == path]
        with torch.no_grad():
            changes = response(network, image, hit, chosen)
        for one in chosen:
            entry = one.exposed
            shift = 0.0
            if on_the_way_up(entry):
                shift = (path - 1) / 2
            for found, voxel in zip(centre(changes[one.name]), place, strict=True):
                off = entry.offset + entry.stride * found - voxel
                if name != "rep3d" or path == 1:  # blocks of 2³ cannot tell where in them the impulse was
                    assert off == pytest.approx(shift, abs=0.01), f"{one.name}: {off} voxels off"
                assert abs(off) <= entry.stride, f"{one.name}: {off} voxels off"
            seen += 1
    assert seen == len(pending)


@pytest.mark.parametrize("name", SMALL)
def test_a_decoders_voxel_acts_on_the_answer_exactly_where_it_is_said_to_lie(name: str) -> None:
    network = shifting_only(name)
    image = image_of(network, name)
    modules = dict(network.named_modules())
    with torch.no_grad():
        before = network(image)
        for entry in entries(network):
            if not on_the_way_up(entry) or entry.name.startswith(("skip-fusion key", "uncertainty")):
                continue  # keys are summed over the window; the uncertainty is the answer's own
            voxel = [EDGE[name] // entry.stride // 2 + one for one in (0, -1, 0)]

            def lit(module: Any, inputs: Any, output: Any, voxel: list[int] = voxel) -> Any:
                output = output.clone()
                output[(0, slice(0, 1), *voxel)] += EPSILON
                return output

            # Of a preference the spatial gate, which lies on the same grid, is lit.
            layer = next((layer for layer in entry.layers if layer.endswith("spatial_se")), entry.layers[0])
            handle = modules[layer].register_forward_hook(lit)
            change = (network(image) - before)[0, 0]
            handle.remove()
            for found, place in zip(centre(change), voxel, strict=True):
                assert found == pytest.approx(entry.offset + entry.stride * place, abs=0.01), entry.name


@pytest.mark.parametrize(
    ("name", "deepest", "shift"),
    [
        ("lka_unet", 8, 3.5),
        ("dnet", 8, 3.5),
        ("rep3d", 16, 0.5),
        ("monai_dynunet", 8, 3.5),
        ("monai_segresnet", 8, 3.5),
    ],
)
def test_the_networks_themselves_move_what_they_carry_by_half_a_coarse_voxel(
    name: str, deepest: int, shift: float
) -> None:
    """The bottleneck hears around its voxel's place and acts around another: no place of a map could be right for both.

    Rep3D, whose strided convolutions are blocks too, is off by half a voxel only.
    """
    network = shifting_only(name)
    image = image_of(network, name)
    layer = upsampled_layers(network, image)[deepest]
    voxel = image.shape[2] // deepest // 2
    seen: list[Any] = []
    handle = network.get_submodule(layer.layer).register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    image.requires_grad_()
    before = network(image)
    handle.remove()
    (heard,) = torch.autograd.grad(seen[0][0, :, voxel, voxel, voxel].sum(), image)

    def lit(module: Any, given: Any) -> Any:
        changed = given[0].detach().clone()
        changed[0, :, voxel, voxel, voxel] += EPSILON
        return (changed,)

    handle = network.get_submodule(layer.layer).register_forward_pre_hook(lit)
    with torch.no_grad():
        acts = centre((network(image) - before)[0, 0])
    handle.remove()
    hears = centre(heard[0, 0])
    assert layer.offset + deepest * voxel == pytest.approx(hears[0], abs=0.01)
    assert acts[0] - hears[0] == pytest.approx(shift, abs=0.01)


# Maps that an impulse at 6 of 16 voxels reaches by the finest path alone, or, behind 2³ convolutions, in one block.
LOOKED_AT = {
    "dnet": [
        "spatial gate w1+w2, encoder 1/2 block 0",
        "fusion gate, decoder 1/2",
        "spatial gate w1+w2, decoder 1/2 block 0",
    ],
    "dlknetr": ["spatial gate w1+w2, encoder 1/2 block 0", "decoder features 1/2"],
    "lka_unet": ["LK attention, level 0"],
    "rep3d": [*(f"large-kernel response, encoder 1/{n} block 0" for n in (2, 8)), "decoder features 1/4"],
    "dalight3d": ["skip-fusion key map, decoder 1/2 #0"],
}


@pytest.mark.parametrize("name", LOOKED_AT)
@pytest.mark.parametrize("geometry", ["axis-aligned", "oblique and anisotropic", "transformed"])
def test_an_impulse_in_a_volume_lands_in_the_stitched_map_within_one_of_its_voxels(name: str, geometry: str) -> None:
    edge = 16 if name in ("dnet", "dalight3d") else 32
    shape = (edge * 3 // 2, edge, edge)  # (k, j, i): two windows, which share a third of the volume
    volume = plain_volume(shape) if geometry == "axis-aligned" else oblique_volume(shape)
    if geometry == "transformed":
        turn = np.eye(4)
        turn[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
        turn[:3, 3] = (5, -7, 11)
        volume = volume.transformed(turn)
    package = FakePackage(name, local_only(tiny(name)), (edge, edge, edge))
    canonical = canonical_axes(volume.grid).apply_grid(volume.grid)
    voxel = np.array([6, 6, 6]) + (16 if canonical.shape[0] > 32 else 0) * np.array([1, 0, 0])
    place = canonical.ras_of(voxel[::-1])

    def maps_of(array: np.ndarray) -> list[Any]:
        _, found = inspect_volume(volume.with_array(array), package, LOOKED_AT[name], "cpu")
        return [one for one in found if "disagreement" not in one.name]

    dark = np.zeros(shape, np.float32)
    bright = dark.copy()
    bright[tuple(np.rint(volume.grid.ijk_of(place)).astype(int)[::-1])] = 8.0
    for before, after in zip(maps_of(dark), maps_of(bright), strict=True):
        change = after.volume.array - before.volume.array
        change = np.abs(change - np.median(change))
        assert change.max() > 0
        lit = np.argwhere(change > 0.5 * change.max()).mean(0)
        off = canonical.ijk_of(after.volume.grid.ras_of(lit[::-1])) - canonical.ijk_of(place)
        assert np.abs(off).max() <= after.passport["native stride (working voxels)"], f"{after.name}: {off} voxels off"
