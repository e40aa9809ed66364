"""From labels to an image: contrast, texture, bias, partial volume, noise, artefacts."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from .shapes import Layout, smooth_field


def render(layout: Layout) -> NDArray[np.float32]:
    """An image ``(k, j, i)`` float32 of the layout, in arbitrary units (contrasts near 1)."""
    rng, generator, parts = layout.rng, layout.generator, layout.parts
    size = parts.shape[0]
    kind = str(rng.choice(["ct", "sequence", "free"], p=[0.45, 0.25, 0.3]))
    levels, textures = _by_chance(layout) if kind == "free" else _by_tissue(layout, computed_tomography=kind == "ct")
    image = levels[parts]
    image = image + textures[parts] * _texture(size, rng, generator)
    if rng.random() < 0.3:  # slow change within tissues: uptake, fat infiltration
        image = image + float(rng.uniform(0.05, 0.3)) * smooth_field(size, 3, generator)
    image = _blurred(image, float(rng.uniform(0.0, 1.3)))
    if kind != "ct" and rng.random() < 0.6:  # receive-coil bias, multiplicative around the darkest tissue
        field = float(rng.uniform(0.05, 0.35)) * smooth_field(size, int(rng.integers(1, 4)), generator)
        image = (image - image.min()) * torch.exp(field)
    image = _with_noise(image, rng, generator)
    if rng.random() < 0.12:
        image = image + _streaks(size, rng)
    if rng.random() < 0.3:  # a few extreme voxels: metal, contrast medium, air
        image = image.clamp(float(image.quantile(0.005)) - float(rng.exponential(0.5)))
    result: NDArray[np.float32] = image.numpy().astype(np.float32)
    return -result if kind == "free" and rng.random() < 0.5 else result


# Hundreds of Hounsfield units: (lowest, highest) level and texture of a tissue.
_CT: dict[str, tuple[float, float, float]] = {
    "air": (-10.0, -7.0, 0.1),
    "fat": (-1.2, -0.7, 0.1),
    "fluid": (-0.1, 0.25, 0.05),
    "soft": (0.2, 0.8, 0.1),
    "muscle": (0.4, 0.7, 0.08),
    "organ": (0.4, 1.4, 0.08),
    "paste": (-1.0, 1.5, 0.5),
    "disc": (0.6, 1.1, 0.1),
    "grey": (0.35, 0.45, 0.02),
    "white": (0.22, 0.32, 0.02),
    "lesion": (0.1, 0.9, 0.1),
    "vein": (0.3, 1.8, 0.05),
    "blood": (0.4, 3.5, 0.05),
    "marrow": (0.8, 3.0, 0.4),
    "cortex": (3.0, 10.0, 0.5),
}
_ANY = ("soft", "organ", "fat", "fluid", "muscle", "air", "blood", "lesion")
_ANY_SHARES = (0.28, 0.22, 0.18, 0.1, 0.1, 0.04, 0.05, 0.03)


def _by_tissue(layout: Layout, computed_tomography: bool) -> tuple[Tensor, Tensor]:
    """A level and a texture strength per part, from what it is made of.

    In computed tomography tissues have their usual order and distances; in a magnetic resonance sequence the order is
    random, and one tissue is alike wherever it is.
    """
    rng = layout.rng
    count = max(layout.wholes) + 1
    if computed_tomography:
        level_of = {tissue: float(rng.uniform(low, high)) for tissue, (low, high, _) in _CT.items()}
        texture_of = {tissue: texture * float(rng.uniform(0.3, 2.0)) for tissue, (*_, texture) in _CT.items()}
        vary = float(rng.choice([0.02, 0.08, 0.15]))
    else:
        level_of = {tissue: float(rng.uniform(0, 4)) for tissue in _CT}
        level_of["air"] = level_of["cortex"] = float(rng.uniform(-0.3, 0.3))
        texture_of = {tissue: abs(float(rng.normal())) * 0.2 for tissue in _CT}
        vary = float(rng.choice([0.05, 0.15, 0.3]))
    levels, textures = np.zeros(count), np.zeros(count)
    tissue_of_whole: dict[int, str] = {}
    for part, whole in layout.wholes.items():
        tissue = layout.tissues.get(part) or str(rng.choice(_ANY, p=_ANY_SHARES))
        if part != whole and part not in layout.tissues and rng.random() < 0.4:
            tissue = tissue_of_whole[whole]
        tissue_of_whole.setdefault(whole, tissue)
        levels[part] = level_of[tissue] + vary * (1 + 0.1 * abs(level_of[tissue])) * float(rng.normal())
        textures[part] = texture_of[tissue]
    return torch.from_numpy(levels).float(), torch.from_numpy(textures).float()


def _by_chance(layout: Layout) -> tuple[Tensor, Tensor]:
    """A level and a texture strength per part. Few tissues for many parts: neighbours often look alike."""
    rng, wholes = layout.rng, layout.wholes
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
