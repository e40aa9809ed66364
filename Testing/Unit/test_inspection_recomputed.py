"""What is recorded, against the papers' equations written out: from the block's input, in double precision.

Nothing here calls the modules that are recorded; only their inputs and weights are taken from the network.
"""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as functional  # noqa: E402
from inspection_support import plain_volume, tiny  # noqa: E402
from networks_support import random_image, randomise  # noqa: E402

from LKSegmentLib import networks  # noqa: E402
from LKSegmentLib.inference.windows import window_layout  # noqa: E402
from LKSegmentLib.inspection.by_network import exposed  # noqa: E402
from LKSegmentLib.inspection.exposed import choose  # noqa: E402
from LKSegmentLib.inspection.recording import Taps  # noqa: E402
from LKSegmentLib.inspection.slice_weights import SliceRecord  # noqa: E402

TOLERANCE = 2e-5


class Seen:
    """One run: what was recorded, and what the layers were given, in double precision."""

    def __init__(self, network: Any, image: Any, names: list[str], layers: list[str]) -> None:
        self.network = network
        self.given: dict[str, list[Any]] = {}
        chosen = choose(exposed(network), names, "tiny")

        def keep(layer: str) -> Any:
            def hook(module: Any, given: tuple[Any, ...]) -> None:
                self.given[layer] = [one.detach().double() for one in given if torch.is_tensor(one)]

            return hook

        handles = [network.get_submodule(layer).register_forward_pre_hook(keep(layer)) for layer in layers]
        with torch.inference_mode(), Taps(network, chosen) as taps:
            taps.start()
            self.logits = network(image).double()
        for handle in handles:
            handle.remove()
        self.values = {name: torch.from_numpy(taps.values[name]).double() for name in names}

    def weight(self, name: str) -> Any:
        tensor = self.network.state_dict()[name]
        return tensor.double() if tensor.is_floating_point() else tensor

    def agrees(self, name: str, wanted: Any) -> None:
        found = self.values[name]
        assert found.shape == wanted.shape, name
        off = float((found - wanted).abs().max())
        assert off <= TOLERANCE * max(1.0, float(wanted.abs().max())), f"{name}: {off} off"


def test_lk_attention_unet() -> None:
    """A = σ(PW(DW(DWD(f)))), Eq. 6 of Li et al.; K = 21 and d = 3: a 7³ kernel of dilation 3, a 5³ kernel, 1³."""
    name = "LK attention, level 2"
    seen = Seen(tiny("lka_unet", variant="mid"), random_image(1, 1, 32, 32, 32), [name, f"{name} #5"], ["lk.2"])
    (f,) = seen.given["lk.2"]
    channels = f.shape[1]
    far = functional.conv3d(
        f, seen.weight("lk.2.dwd.weight"), seen.weight("lk.2.dwd.bias"), padding=9, dilation=3, groups=channels
    )
    dense = functional.conv3d(
        far, seen.weight("lk.2.dw.weight"), seen.weight("lk.2.dw.bias"), padding=2, groups=channels
    )
    mixed = torch.einsum("oc,bckji->bokji", seen.weight("lk.2.pw.weight").flatten(1), dense)
    gate = 1 / (1 + torch.exp(-(mixed + seen.weight("lk.2.pw.bias").view(1, -1, 1, 1, 1))))
    seen.agrees(name, gate[0].mean(0))
    seen.agrees(f"{name} #5", gate[0, 5])


@pytest.mark.parametrize("selection", ["sum", "per_kernel"])
def test_dnet(selection: str) -> None:
    """DLK and DFF of the specification: cascaded kernels, spatial and channel gates, fusion before its sigmoid."""
    dlk, dff = "decoder.stages.1.0.attn.spatial_gating_unit", "decoder.steps.1"
    place, fused = "decoder 1/2 block 0", "decoder 1/2"
    gates = ["spatial gate w1+w2"] if selection == "sum" else ["near-kernel gate", "far-kernel gate"]
    names = [f"{what}, {place}" for what in (*gates, "far-kernel preference", "far-kernel share")]
    fusion = [f"fusion gate{what}, {fused}" for what in ("", " from the decoder", " from the skip")]
    everything = [*names, *fusion, f"skip share, {fused}", "salience features #1"]
    salience = "encoder.saliency"
    network = tiny("dnet", selection=selection)
    seen = Seen(network, random_image(1, 1, 32, 32, 32), everything, [dlk, dff, salience])

    (x,) = seen.given[dlk]
    half = x.shape[1] // 2
    h = torch.einsum("oc,bckji->bokji", seen.weight(f"{dlk}.channel_proj.weight").flatten(1), x)
    near = functional.conv3d(
        h, seen.weight(f"{dlk}.att_conv1.weight"), seen.weight(f"{dlk}.att_conv1.bias"), padding=2, groups=half
    )
    far = functional.conv3d(
        near,
        seen.weight(f"{dlk}.att_conv2.weight"),
        seen.weight(f"{dlk}.att_conv2.bias"),
        padding=9,
        dilation=3,
        groups=half,
    )
    u = torch.cat((near, far), 1)
    pooled = torch.stack((u.mean(1), u.amax(1)), 1)
    w = torch.sigmoid(
        functional.conv3d(
            pooled, seen.weight(f"{dlk}.spatial_se.0.weight"), seen.weight(f"{dlk}.spatial_se.0.bias"), padding=3
        )
    )
    v = u * w.sum(1, keepdim=True) if selection == "sum" else torch.cat((near * w[:, :1], far * w[:, 1:]), 1)
    c = torch.sigmoid(seen.weight(f"{dlk}.conv_atten.0.weight").flatten(1) @ v.mean((2, 3, 4))[0])
    size = (c.view(-1, 1, 1, 1) * v[0]).abs()
    maps = [w[0].sum(0)] if selection == "sum" else [w[0, 0], w[0, 1]]
    share = c[half:].mean() / (c[half:].mean() + c[:half].mean())
    for name, wanted in zip(names, [*maps, size[half:].sum(0) / size.sum(0), share], strict=True):
        seen.agrees(name, wanted)

    up, skip = seen.given[dff]
    terms = [
        torch.einsum("c,bckji->bkji", seen.weight(f"{dff}.{part}.weight").flatten(), given)[0]
        + seen.weight(f"{dff}.{part}.bias")
        for part, given in (("conv1", up), ("conv2", skip))
    ]
    for name, wanted in zip(fusion, [torch.sigmoid(terms[0] + terms[1]), *terms], strict=True):
        seen.agrees(name, wanted)
    means = torch.cat((up, skip), 1).mean((2, 3, 4))[0]
    gate = torch.sigmoid(seen.weight(f"{dff}.conv_atten.0.weight").flatten(1) @ means)
    d = up.shape[1]
    seen.agrees(f"skip share, {fused}", gate[d:].mean() / (gate[d:].mean() + gate[:d].mean()))
    seen.agrees("salience features #1", _salience(seen, salience)[1])


def _salience(seen: Seen, layer: str) -> Any:
    """t = LeakyReLU_0.2(BN(Conv3(image))), S = t + Conv1(GELU(DWConv3(Conv1(BN(t))))), both BN one module."""

    def norm(x: Any) -> Any:
        mean, variance, scale, shift = (
            seen.weight(f"{layer}.norm_layer.{part}").view(1, -1, 1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def convolved(x: Any, part: str, padding: int = 0, groups: int = 1) -> Any:
        weight, bias = seen.weight(f"{layer}.{part}.weight"), seen.weight(f"{layer}.{part}.bias")
        return functional.conv3d(x, weight, bias, padding=padding, groups=groups)

    (image,) = seen.given[layer]
    t = functional.leaky_relu(norm(convolved(image, "channel_proj", 1)), 0.2)
    wide = convolved(norm(t), "mlp.fc1")
    wide = functional.gelu(convolved(wide, "mlp.dwconv", 1, wide.shape[1]))
    return (t + convolved(wide, "mlp.fc2"))[0]


def test_rep3d() -> None:
    """M = P + N2(Conv7(σ(N1(Conv7(P))))), P = 1 / (1 + d); GELU(BN of the depth-wise convolution by W · M)."""
    name, layer = "large-kernel response, encoder 1/4 block 0", "rep3d.stages.1.0"
    seen = Seen(tiny("rep3d"), random_image(1, 1, 32, 32, 32), [name], [layer])
    (x,) = seen.given[layer]
    edge = 5
    axis = torch.arange(edge, dtype=torch.float64) - edge // 2
    distance = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    prior = (1 / (1 + distance))[None, None]

    def normed(u: Any, part: str) -> Any:
        scaled = (u - u.mean()) / (u.var(correction=0) + 1e-6).sqrt()
        return scaled * seen.weight(f"{layer}.{part}.weight") + seen.weight(f"{layer}.{part}.bias")

    def generated(u: Any, part: str) -> Any:
        weight, bias = seen.weight(f"{layer}.{part}.weight"), seen.weight(f"{layer}.{part}.bias")
        return functional.conv3d(u, weight, bias, padding=3)

    squashed = torch.sigmoid(normed(generated(prior, "prior_conv"), "norm_w"))
    mask = prior + normed(generated(squashed, "prior_conv2"), "norm_w2")
    kernel = seen.weight(f"{layer}.dwconv.weight") * mask
    y = functional.conv3d(x, kernel, padding=edge // 2, groups=x.shape[1])
    mean, variance, scale, shift = (
        seen.weight(f"{layer}.norm.{part}").view(1, -1, 1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    y = (y - mean) / (variance + 1e-5).sqrt() * scale + shift
    y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
    seen.agrees(name, y[0].mean(0))


@pytest.mark.parametrize("standard", [False, True])
def test_dalight3d(standard: bool) -> None:
    """CSA by its columns as released (by its rows in the ordinary form), SSFB's reversed softmax axes, the entropy."""
    csa, ssfb = "encoder.stages.2.attention", "decoder.skip_fusions.1"
    slices, place = "slice attention, encoder 1/4", "decoder 1/2"
    maps = [f"skip-fusion {what}, {place}" for what in ("channel gate", "query map", "key map")]
    names = [slices, "slice attention matrix, encoder 1/4", "uncertainty", maps[0], f"{maps[1]} #1", f"{maps[2]} #2"]
    network = tiny("dalight3d", csa_standard=standard)
    seen = Seen(network, random_image(1, 1, 32, 32, 32), names, [csa, ssfb])

    def linear(layer: str, x: Any) -> Any:  # (channels, n)
        return seen.weight(f"{layer}.weight").flatten(1) @ x + seen.weight(f"{layer}.bias")[:, None]

    (x,) = seen.given[csa]
    p = x[0].mean((2, 3))
    q, k, v = (linear(f"{csa}.{part}", p) for part in ("query", "key", "value"))
    count = p.shape[1]
    attention = torch.stack([(q[:, i] @ k / q.shape[0] ** 0.5).softmax(0) for i in range(count)])
    update = torch.zeros_like(v)
    weight = torch.zeros(count, count, dtype=torch.float64)  # (from, to)
    for i in range(count):
        for j in range(count):
            if standard:
                update[:, i] += v[:, j] * attention[i, j]
                weight[j, i] = attention[i, j]
            else:
                update[:, j] += v[:, i] * attention[i, j]
                weight[i, j] = attention[i, j]
    distance = torch.tensor([[abs(i - j) for j in range(count)] for i in range(count)], dtype=torch.float64)
    received = weight.sum(0)
    size = update.square().mean(0).sqrt()
    wanted = torch.stack((
        received, weight.sum(1), weight.diagonal(), (weight * distance).sum(0) / received,
        size, size / p.square().mean(0).sqrt(),
    ))  # fmt: skip
    seen.agrees(slices, wanted)
    seen.agrees(names[1], weight)
    ones = torch.ones(count, dtype=torch.float64)
    assert torch.allclose(received, ones) == standard, "columns sum to one in the ordinary form only"

    e, d = (one[0].flatten(1) for one in seen.given[ssfb])
    shape = seen.given[ssfb][0].shape[2:]
    query = linear(f"{ssfb}.low_rank_attn.query_proj", d)
    key = linear(f"{ssfb}.low_rank_attn.key_proj", e)
    rank = query.shape[0]
    seen.agrees(names[4], ((query / rank**0.5).softmax(1) * query.shape[1])[1].view(shape))
    seen.agrees(names[5], (key / rank**0.5).softmax(0)[2].view(shape))
    both = torch.cat((d.mean(1), e.mean(1)))
    hidden = functional.gelu(
        seen.weight(f"{ssfb}.channel_gate.fc.0.weight") @ both + seen.weight(f"{ssfb}.channel_gate.fc.0.bias")
    )
    gate = torch.sigmoid(
        seen.weight(f"{ssfb}.channel_gate.fc.2.weight") @ hidden + seen.weight(f"{ssfb}.channel_gate.fc.2.bias")
    )
    seen.agrees(names[3], gate.mean())
    share = seen.logits[0].softmax(0)
    seen.agrees("uncertainty", -(share * share.log()).sum(0))


def test_msa2net() -> None:
    """φ = [mean; std] of each channel of a slice, α = softmax(W2 ReLU(W1 φ + b1) + b2); ten slices, eight at a time."""
    network = randomise(networks.create("msa2net", in_channels=1, out_channels=2)).requires_grad_(False)
    layer = "bridge.1.units.0.adaptive"
    names = [f"kernel weights, {layer}", "mean kernel size by module"]
    image = random_image(1, 1, 10, 24, 20)
    given: list[Any] = []
    handle = network.get_submodule(layer).register_forward_pre_hook(lambda module, x: given.append(x[0].double()))
    seen = Seen(network, image, names, [])
    handle.remove()
    assert [len(part) for part in given] == [8, 2], "the slices go in two parts"
    x = torch.cat(given)
    deviation = ((x - x.mean((2, 3), keepdim=True)).square().mean((2, 3)) + 1e-6).sqrt()
    phi = torch.cat((x.mean((2, 3)), deviation), 1)
    hidden = (phi @ seen.weight(f"{layer}.gate.0.weight").T + seen.weight(f"{layer}.gate.0.bias")).clamp(min=0)
    alpha = (hidden @ seen.weight(f"{layer}.gate.2.weight").T + seen.weight(f"{layer}.gate.2.bias")).softmax(1)
    seen.agrees(names[0], alpha.T)
    assert float(alpha.std(0).max()) > 1e-4, "the slices differ, or the order of the slices would not be tested"
    entry = choose(exposed(network), names[1:], "msa2net")[0].exposed
    row = seen.values[names[1]][entry.columns.index(layer)]
    assert float((row - alpha @ torch.tensor([3.0, 5.0, 7.0], dtype=torch.float64)).abs().max()) < 1e-4

    working = plain_volume((10, 24, 20)).grid
    layout = window_layout((10, 24, 20), (10, 24, 20), 0.5)
    record = SliceRecord(choose(exposed(network), names[:1], "msa2net")[0], layout, working)
    record.add(next(layout.windows()), seen.values[names[0]].float().numpy())
    table = record.finished()
    assert table.column("slice") == list(range(10)) and table.column("S (mm)") == [float(n) for n in range(10)]
    for size, wanted in zip((3, 5, 7), alpha.T, strict=True):
        assert table.column(f"share of {size}²") == pytest.approx(wanted.tolist(), abs=1e-5)
    assert table.x == "along the slice axis (mm)" and len(table.y) == 3
