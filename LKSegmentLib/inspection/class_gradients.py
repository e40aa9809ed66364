"""Gradient-based maps of one label, for any network: class activation, and gradient times image.

The score of a window is the sum of the label's logits over the voxels that the window's own answer gives to the label
(Seg-Grad-CAM: Vinogradova, Dibrov and Myers, AAAI 2020); a window without the label has score and maps of zero.

    class activation      max(0, Σ_c a_c A_c),  a_c = mean over voxels of ∂score/∂A_c      (Grad-CAM: Selvaraju 2017)
    gradient times image  Σ over channels of x · ∂score/∂x                                  with its sign

A is what the network hands up from one resolution to the next; without a number in the name from the deepest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.devices import resolve_device
from LKSegmentLib.inference.labels import decided
from LKSegmentLib.inference.memory import free_memory, in_words
from LKSegmentLib.inference.preparation import preparation_for, prepared_volume
from LKSegmentLib.inference.segmentation import Cancel, Progress, failures_of, layout_for, report, stop_if
from LKSegmentLib.inference.windows import cut
from LKSegmentLib.packages import Manifest, Package
from LKSegmentLib.volumes import Volume

from .exposed import Chosen, Exposed
from .gradients import check_gradient_memory
from .maps import Map
from .stitched_maps import maps_of
from .stitching import BYTES_PER_VOXEL, Lattice, StitchedMap
from .upsampled_layers import UpsampledLayer, upsampled_layers

ACTIVATION, TIMES_IMAGE = "class activation", "gradient times image"
SENTENCE = "Shows where the score of the label was sensitive on this image; it does not prove cause."

_NAME = re.compile(rf"^(?P<kind>{ACTIVATION}|{TIMES_IMAGE})(?: 1/(?P<stride>\d+))?, (?P<label>.+)$")


@dataclass(frozen=True)
class _Asked:
    """A map that was asked for: `stride` None is the deepest, `output` the label's channel."""

    name: str
    kind: str
    stride: int | None
    output: int


def is_gradient(name: str) -> bool:
    """Whether a name asks for one of these maps, of whatever label."""
    return _NAME.match(name) is not None


def gradient_names(package: Package) -> list[str]:
    """The names that any volume model takes: both maps for each label but the background."""
    labels = [label.name for label in package.manifest.segments]
    return [f"{kind}, {label}" for kind in (ACTIVATION, TIMES_IMAGE) for label in labels]


def gradient_maps(
    volume: Volume,
    package: Package,
    names: Sequence[str],
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> list[Map]:
    """Gradient-based maps of a volume; the network is run once more on every window, and back once for each label.

    Args:
        volume: the image.
        package: a package of kind "volume".
        names: "class activation, LABEL", "class activation 1/8, LABEL" (what is handed up from that resolution) or
            "gradient times image, LABEL".
        device, progress, cancelled: as of `segment_volume`; the stage is called "gradients".

    Returns:
        Maps, float32 in raw units, stitched as the segmentation is; of several windows each is followed by
        "NAME: window disagreement".

    Raises:
        InputError: an unknown name, label or resolution (the sentence lists those there are), a click model, a network
            of slices that has no class activation, maps larger than the memory.
        RunError: the memory of the device does not suffice, or the network fails.
        Cancelled: the caller asked to stop.
    """
    manifest = package.manifest
    if manifest.kind != "volume":
        raise InputError(f'The model "{manifest.name}" works with clicks, and gradient maps are of whole volumes.')
    asked = [_asked(name, package) for name in dict.fromkeys(names)]
    resolved = resolve_device(device)
    network = package.network(resolved)
    preparation = preparation_for(volume.grid, manifest.spacing)
    layout = layout_for(preparation.working, manifest, network)
    prepared = prepared_volume(volume, manifest)
    stop_if(cancelled)

    def image_of(window: Any) -> Tensor:
        return cut(prepared.array, window, prepared.padding).to(resolved)

    first = image_of(next(iter(layout.windows())))
    check_gradient_memory(network, manifest, first)
    with failures_of(manifest, str(resolved)):
        layers = upsampled_layers(network, first)
    chosen = {one: Chosen(_described(one, layers, manifest)) for one in asked}
    lattices = {one: Lattice.of(layout, entry.exposed.stride, entry.exposed.offset) for one, entry in chosen.items()}
    _check_room(list(lattices.values()))
    stitched = {one: StitchedMap(lattice) for one, lattice in lattices.items()}
    for number, window in enumerate(layout.windows()):
        stop_if(cancelled)
        image = image_of(window)
        with failures_of(manifest, str(resolved)):
            values = _window_gradients(network, image, asked, layers, manifest)
        for one, value in values.items():
            stitched[one].add(window, value.cpu().numpy())
        report(progress, "gradients", (number + 1) / layout.count)
    working = preparation.working
    return [one for key, entry in chosen.items() for one in maps_of(entry, stitched[key], layout, working, manifest)]


def _window_gradients(
    network: nn.Module, image: Tensor, asked: Sequence[_Asked], layers: dict[int, UpsampledLayer], manifest: Manifest
) -> dict[_Asked, Tensor]:
    """The maps (k, j, i) of one window (1, channels, k, j, i)."""
    wanted = {_layer(one, layers) for one in asked if one.kind == ACTIVATION}
    handed: dict[int, Tensor] = {}

    def keep(stride: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            # A copy of its own: what is changed in place elsewhere leaves it alone.
            handed[stride] = inputs[0].clone()
            return (handed[stride], *inputs[1:])

        return hook

    modules = dict(network.named_modules())
    handles = [modules[layers[stride].layer].register_forward_pre_hook(keep(stride)) for stride in wanted]
    try:
        with torch.enable_grad():
            image = image.detach().clone().requires_grad_()
            answer = network(image)
            logits = (answer[0] if isinstance(answer, (list, tuple)) else answer)[0].float()
    finally:
        for handle in handles:
            handle.remove()
    labels = torch.from_numpy(decided(logits.detach(), manifest.output).astype("int64")).to(logits.device)
    found: dict[_Asked, Tensor] = {}
    strides = list(handed)
    for output in dict.fromkeys(one.output for one in asked):
        there = labels == output + (1 if manifest.output == "regions" else 0)
        gradients: tuple[Tensor | None, ...] = (None,) * (1 + len(strides))
        if bool(there.any()):
            with torch.enable_grad():
                score = logits[output][there].sum()
            gradients = torch.autograd.grad(
                score, [image, *(handed[stride] for stride in strides)], retain_graph=True, allow_unused=True
            )
        for one in asked:
            if one.output != output:
                continue
            if one.kind == TIMES_IMAGE:
                found[one] = _times(image, gradients[0])
            else:
                stride = _layer(one, layers)
                found[one] = activation_map(handed[stride], gradients[1 + strides.index(stride)])
    return found


def activation_map(features: Tensor, gradient: Tensor | None) -> Tensor:
    """Grad-CAM of features (1, channels, k, j, i) and the gradient of the score: (k, j, i), at least 0."""
    if gradient is None:
        return torch.zeros_like(features[0, 0], dtype=torch.float32)
    weights = gradient.float().mean((2, 3, 4), keepdim=True)
    return (weights * features.detach().float()).sum(1)[0].clamp(min=0)


def _times(image: Tensor, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        return torch.zeros_like(image[0, 0])
    return (image.detach() * gradient).sum(1)[0].float()


def _asked(name: str, package: Package) -> _Asked:
    manifest = package.manifest
    match = _NAME.match(name)
    outputs = {label.name: label.value - (1 if manifest.output == "regions" else 0) for label in manifest.labels}
    outputs = {label: output for label, output in outputs.items() if output >= 0}
    if match is None or match["label"] not in outputs or (match["stride"] and match["kind"] == TIMES_IMAGE):
        raise InputError(
            f'There is no gradient map {name!r}. The model "{manifest.name}" takes: '
            f"{'; '.join(gradient_names(package))}; and a resolution after the first words, as in "
            f'"{ACTIVATION} 1/8, LABEL".'
        )
    return _Asked(name, match["kind"], int(match["stride"]) if match["stride"] else None, outputs[match["label"]])


def _layer(one: _Asked, layers: dict[int, UpsampledLayer]) -> int:
    if not layers:
        raise InputError(
            f"{one.name!r} needs a network that hands maps of three dimensions up from a coarser resolution; this one "
            f'does not. Ask for "{TIMES_IMAGE}, LABEL".'
        )
    stride = max(layers) if one.stride is None else one.stride
    if stride not in layers:
        there = ", ".join(f"1/{number}" for number in sorted(layers))
        raise InputError(f"{one.name!r}: this network hands maps up from {there}, not from 1/{stride}.")
    return stride


def _described(one: _Asked, layers: dict[int, UpsampledLayer], manifest: Manifest) -> Exposed:
    score = "of the sum of the label's logits over the voxels that the window's answer gives it"
    common = {"kind": "gradient", "sentence": SENTENCE, "output": one.output}
    if one.kind == TIMES_IMAGE:
        meaning = {
            **common,
            "unit": "logit (summed over voxels)",
            "range": [None, None],
            "neutral": 0.0,
            "operator": f"prepared image times the gradient {score}, summed over the image's channels",
            "identifiable": "yes, for small changes of this image; the product depends on which intensity the "
            "preparation makes zero, where it is zero whatever the gradient",
        }
        return Exposed(one.name, ("image",), _never, meaning)
    layer = layers[_layer(one, layers)]
    meaning = {
        **common,
        "unit": "logit times feature (arbitrary scale; grows with the label's size in the window)",
        "range": [0.0, None],
        "neutral": 0.0,
        "operator": f"max(0, Σ a_c A_c) of {layer.channels} channels at 1/{layer.stride}; a_c is the mean over the "
        f"window of the gradient {score}",
        "identifiable": "no: the gradient is averaged over the window, so that a channel counts alike everywhere; "
        "another layer, score or window gives another map",
    }
    return Exposed(one.name, (f"input of {layer.layer}",), _never, meaning, stride=layer.stride, offset=layer.offset)


def _never(outputs: Sequence[Tensor]) -> Tensor:
    raise AssertionError("a gradient map is not read from a forward pass")


def _check_room(lattices: Sequence[Lattice]) -> None:
    free = free_memory()
    needed = BYTES_PER_VOXEL * sum(math.prod(lattice.shape) for lattice in lattices)
    if free is not None and needed > free:
        raise InputError(
            f"The gradient maps need {in_words(needed)} of memory and {in_words(free)} are free: choose fewer maps, or "
            "crop the volume."
        )
