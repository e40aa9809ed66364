"""From labels to an image: contrast, texture, bias, partial volume, thick slices, noise, artefacts."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from .shapes import smooth_field


def render(
    parts: Tensor, wholes: dict[int, int], rng: np.random.Generator, generator: torch.Generator
) -> NDArray[np.float32]:
    """An image ``(k, j, i)`` float32 of the layout, in arbitrary units (contrasts near 1)."""
    size = parts.shape[0]
    levels, textures = _tissues(wholes, rng)
    image = levels[parts]
    image = image + textures[parts] * _texture(size, rng, generator)
    if rng.random() < 0.3:  # slow change within tissues: uptake, fat infiltration
        image = image + float(rng.uniform(0.05, 0.3)) * smooth_field(size, 3, generator)
    image = _blurred(image, float(rng.uniform(0.0, 1.3)))
    image = _thick_slices(image, rng)
    if rng.random() < 0.5:  # receive-coil bias, multiplicative around the darkest tissue
        field = float(rng.uniform(0.05, 0.35)) * smooth_field(size, int(rng.integers(1, 4)), generator)
        image = (image - image.min()) * torch.exp(field)
    image = _with_noise(image, rng, generator)
    if rng.random() < 0.12:
        image = image + _streaks(size, rng)
    if rng.random() < 0.15:
        image = _end_of_view(image, rng)
    if rng.random() < 0.3:  # a few extreme voxels: metal, contrast medium, air
        image = image.clamp(float(image.quantile(0.005)) - float(rng.exponential(0.5)))
    result: NDArray[np.float32] = image.numpy().astype(np.float32)
    return -result if rng.random() < 0.5 else result


def _tissues(wholes: dict[int, int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A level and a texture strength per part. Few tissues for many parts: neighbours often look alike."""
    count = max(wholes) + 1
    tissues = rng.uniform(0, 4, int(rng.integers(2, 8)))
    similar = float(rng.choice([0.05, 0.15, 0.3]))
    levels, textures = np.zeros(count), np.zeros(count)
    group_level: dict[int, float] = {}
    for part, whole in wholes.items():
        level = float(rng.choice(tissues) + similar * rng.normal())
        if part != whole:  # parts of one object: alike, or clearly different inside
            level = group_level[whole] + float(rng.choice([0.0, 0.15, 0.5, 1.2])) * float(rng.normal())
        group_level.setdefault(whole, level)
        levels[part] = level
        textures[part] = abs(rng.normal()) * 0.3 * rng.choice([0.1, 0.5, 1.0])
    if rng.random() < 0.4:  # air or bone: one tissue far away from the rest
        levels[int(rng.integers(count))] += float(rng.choice([-1, 1])) * float(rng.uniform(3, 12))
    return torch.from_numpy(levels).float(), torch.from_numpy(textures).float()


def _texture(size: int, rng: np.random.Generator, generator: torch.Generator) -> Tensor:
    fine = _blurred(torch.randn((size,) * 3, generator=generator), float(rng.uniform(0.5, 1.5)))
    coarse = smooth_field(size, int(rng.integers(6, 14)), generator)
    share = float(rng.random())
    return (1 - share) * fine / fine.std() + share * coarse


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur by separable convolutions, edges replicated; ``sigma`` in voxels."""
    if sigma < 0.25:
        return image
    radius = max(1, round(2.5 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    out = image[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(taps)
        pad = [0] * 6
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = radius
        out = functional.conv3d(functional.pad(out, pad, mode="replicate"), taps.view(shape))
    return out[0, 0]


def _thick_slices(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Average along one axis and interpolate back, as a window resampled from slices up to 8 times thicker."""
    if rng.random() < 0.55:
        return image
    size = image.shape[0]
    factor = float(np.exp(rng.uniform(np.log(1.3), np.log(8))))
    slices = max(4, round(size / factor))
    axis = int(rng.integers(3))
    moved = image.movedim(axis, 0)[None, None]
    thick = functional.interpolate(moved, size=(slices, size, size), mode="area")
    mode = "trilinear" if rng.random() < 0.8 else "nearest"
    options = {"align_corners": False} if mode == "trilinear" else {}
    back = functional.interpolate(thick, size=(size,) * 3, mode=mode, **options)[0, 0]
    return back.movedim(0, axis)


def _with_noise(image: Tensor, rng: np.random.Generator, generator: torch.Generator) -> Tensor:
    strength = float(np.exp(rng.uniform(np.log(0.02), np.log(0.5))))
    noise = torch.randn(image.shape, generator=generator)
    if rng.random() < 0.5:  # reconstruction and interpolation correlate the noise of neighbours
        noise = _blurred(noise, float(rng.uniform(0.4, 1.0)))
        noise = noise / noise.std()
    if rng.random() < 0.3:  # magnitude images: Rician
        other = torch.randn(image.shape, generator=generator)
        positive = image - image.min()
        return torch.sqrt((positive + strength * noise) ** 2 + (strength * other) ** 2)
    return image + strength * noise


def _streaks(size: int, rng: np.random.Generator) -> Tensor:
    """Bright and dark rays from one point in every slice of a random slab: metal in a CT."""
    centre = rng.uniform(0, size, 2)
    axis = np.arange(size, dtype=np.float32)
    angle = np.arctan2(axis[:, None] - centre[0], axis[None] - centre[1])
    rays = sum(np.cos(angle * int(rng.integers(3, 30)) + rng.uniform(0, 6.28)) for _ in range(3))
    middle, width = rng.uniform(0, size), rng.uniform(0.05, 0.4) * size
    slab = np.exp(-0.5 * ((axis - middle) / width) ** 2)
    streaks = float(rng.uniform(0.05, 0.4)) * slab[:, None, None] * np.asarray(rays)[None]
    return torch.from_numpy(streaks.astype(np.float32)).permute(*rng.permutation(3).tolist())


def _end_of_view(image: Tensor, rng: np.random.Generator) -> Tensor:
    """The image ends inside the window: beyond, there is one constant value, as padding gives."""
    image = image.clone()
    axis = int(rng.integers(3))
    depth = int(rng.integers(2, image.shape[0] // 2))
    outside = image.movedim(axis, 0)
    outside = outside[:depth] if rng.random() < 0.5 else outside[-depth:]
    outside.fill_(float(image.min()))
    return image
