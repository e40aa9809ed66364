"""Trains the small LK-attention U-Nets of the worked examples: minutes on a CPU, enough to have something to look at.

They learn a few structures from one labelled image each. They are no models for use: the one of the CT knows the very
image it is shown on. Their package says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional

import LKSegmentLib as lk
from LKSegmentLib.volumes import Volume, canonical_axes, resample

OPTIONS = {"variant": "mid", "feature_sizes": (8, 16, 24, 32, 32, 32), "norm_groups": 8}
WINDOW = 64
SMALL_WINDOW, SMALL_SHARE = 32, 0.75  # most of the time on small windows, where a step takes an eighth
RATE = 4e-3


@dataclass(frozen=True)
class Lesson:
    """What a network is taught: an image, its labels, which values make which structure, and how it is prepared."""

    name: str
    image: str
    labels: str
    structures: dict[str, tuple[int, ...]]
    spacing: float
    intensity: dict[str, object]
    trained_on: str


CT = Lesson(
    "example_ct",
    "01_ct_abdomen_multiorgan/ct.nii.gz",
    "01_ct_abdomen_multiorgan/labels_fast.nii.gz",
    {"liver": (5,), "spleen": (1,), "kidneys": (2, 3), "vertebrae": tuple(range(26, 51))},
    3.0,
    {"rule": "ct", "window": [-160, 240]},
    "One CT (TotalSegmentator's example case, labels made by that model), the same that the example shows.",
)
MR = Lesson(
    "example_mr",
    "15_mr_brain_t1_parcellation/t1.nii.gz",
    "15_mr_brain_t1_parcellation/labels.nii.gz",
    {
        "white matter": (2, 7, 41, 46, 251, 252, 253, 254, 255),
        "grey matter": (3, 8, 42, 47),
        "lateral ventricles": (4, 43),
        "deep grey matter": (10, 11, 12, 13, 49, 50, 51, 52),
    },
    2.0,
    {"rule": "percentile", "nonzero": True},
    "One T1 image of a brain (voxelmorph's example case, FreeSurfer-style labels); not the image of the example.",
)


def train(lesson: Lesson, data: Path, folder: Path, minutes: float, seed: int = 0) -> Path:
    """Train a network on one image for so long and save it as a package below `folder`; returns its path."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    image, labels = _prepared(lesson, data)
    network = lk.networks.create("lka_unet", in_channels=1, out_channels=1 + len(lesson.structures), **OPTIONS)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-3)
    places = [np.argwhere(labels == value) for value in range(1, 1 + len(lesson.structures))]
    begun, steps, loss = time.monotonic(), 0, torch.tensor(0.0)
    while (spent := (time.monotonic() - begun) / 60) < minutes:
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - spent / minutes) ** 0.9
        edge, count = (SMALL_WINDOW, 4) if spent < SMALL_SHARE * minutes else (WINDOW, 1)
        chosen = [places[number] for number in rng.permutation(len(places))[:count]]
        middles = [structure[rng.integers(len(structure))] for structure in chosen]
        windows = [_window(image.shape, middle, edge, rng) for middle in middles]
        x = torch.from_numpy(np.stack([image[window] for window in windows]))[:, None]
        truth = torch.from_numpy(np.stack([labels[window] for window in windows]).astype(np.int64))
        optimiser.zero_grad()
        loss = _loss(network(x), truth)
        loss.backward()
        optimiser.step()
        steps += 1
    return lk.packages.save(
        folder / lesson.name,
        network="lka_unet",
        options=OPTIONS,
        state_dict=network.state_dict(),
        labels=list(lesson.structures),
        spacing=(lesson.spacing,) * 3,
        window=(WINDOW,) * 3,
        overlap=0.25,
        intensity=lesson.intensity,
        licence="Apache-2.0",
        title="Small LK-attention U-Net of the worked examples",
        summary="Trained for minutes on one image: to look inside, not for use.",
        trained_on=f"{lesson.trained_on} {steps} steps on windows of {SMALL_WINDOW}³ and {WINDOW}³ voxels of "
        f"{lesson.spacing:g} mm, {minutes:g} minutes on a CPU, last loss {loss.item():.2f}.",
        overwrite=True,
    )


def _prepared(lesson: Lesson, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image as the package's rule makes it, and labels 1, 2, … of the structures, both on the working grid."""
    from LKSegmentLib.inference.preparation import preparation_for, prepared_channel
    from LKSegmentLib.packages import Intensity
    from LKSegmentLib.packages.channels import channel_from

    volume, given = lk.read_volume(data / lesson.image), lk.read_volume(data / lesson.labels)
    preparation = preparation_for(volume.grid, (lesson.spacing,) * 3)
    rule: Intensity = channel_from({"intensity": lesson.intensity}, "the lesson").intensity
    image = prepared_channel(volume, rule, preparation)
    values = np.zeros(given.grid.shape, np.uint8)
    for number, originals in enumerate(lesson.structures.values(), start=1):
        values[np.isin(given.array, originals)] = number
    canonical = canonical_axes(given.grid).apply(Volume(values, given.ijk_to_ras))
    return image, resample(canonical, preparation.working, "nearest").array


def _window(shape: tuple[int, ...], middle: np.ndarray, edge: int, rng: np.random.Generator) -> tuple[slice, ...]:
    """A window around a place, somewhat off it, inside the image."""
    parts = []
    for size, centre in zip(shape, middle, strict=True):
        low = int(centre) - edge // 2 + int(rng.integers(-edge // 4, edge // 4 + 1))
        low = int(np.clip(low, 0, size - edge))
        parts.append(slice(low, low + edge))
    return tuple(parts)


def _loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross entropy and soft Dice over the structures."""
    probability = torch.softmax(logits, 1)[:, 1:]
    wanted = functional.one_hot(truth, logits.shape[1]).movedim(-1, 1)[:, 1:].float()
    both = (probability * wanted).sum((0, 2, 3, 4))
    dice = (2 * both + 1) / (probability.sum((0, 2, 3, 4)) + wanted.sum((0, 2, 3, 4)) + 1)
    return functional.cross_entropy(logits, truth) + 1 - dice.mean()
