"""Layouts: which voxel belongs to which part of which object. Everything is drawn from smooth random fields."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor


def smooth_field(size: int, cells: int, generator: torch.Generator) -> Tensor:
    """Smooth Gaussian noise ``(size, size, size)`` with about ``cells`` bumps per axis, standard deviation near 1."""
    coarse = torch.randn((1, 1, cells + 1, cells + 1, cells + 1), generator=generator)
    # Two trilinear steps instead of one: the kinks of the first are rounded off by the second.
    middle = min(size, 3 * cells)
    field = functional.interpolate(coarse, size=(middle,) * 3, mode="trilinear", align_corners=True)
    field = functional.avg_pool3d(field, 3, stride=1, padding=1, count_include_pad=False)
    field = functional.interpolate(field, size=(size,) * 3, mode="trilinear", align_corners=True)[0, 0]
    return field / field.std().clamp_min(1e-3)


class Layout:
    """``parts (k, j, i)`` int64; ``wholes`` maps every part to the object it belongs to."""

    def __init__(self, size: int, rng: np.random.Generator, generator: torch.Generator) -> None:
        self.size = size
        self.rng = rng
        self.generator = generator
        self.parts = torch.zeros((size,) * 3, dtype=torch.int64)
        self.wholes: dict[int, int] = {0: 0}
        self.groups: dict[int, int] = {0: 0}  # objects → what they are a part of in turn, as vertebrae of a spine
        self.tissues: dict[int, str] = {}  # what a part is made of, where its shape says so
        self.undivided: set[int] = set()  # objects that are hardly ever meant in part: a bone, not its marrow
        self.between: set[int] = set()  # membranes and rims: they part structures, nobody means them
        axis = torch.arange(size, dtype=torch.float32)
        self.grid = torch.meshgrid(axis, axis, axis, indexing="ij")

    def partition(self) -> None:
        """Divide the window into regions that touch, as organs do: the largest of several smooth fields wins."""
        count = int(self.rng.integers(2, 10))
        fields = torch.stack([self.field(2, 6) + 0.6 * float(self.rng.normal()) for _ in range(count)])
        best = fields.topk(2, dim=0)
        self.parts = best.indices[0]
        self.wholes = {part: part for part in range(count)}
        self.groups = dict(self.wholes)
        if self.rng.random() < 0.5:  # fat planes and membranes between organs and muscles that look alike
            gap = best.values[0] - best.values[1]
            thickness = float(self.rng.uniform(0.05, 0.35)) * (0.3 + self.field(2, 6).abs())
            self.between.add(self.paint(gap < thickness, tissue="fat"))

    def add_object(self) -> None:
        """Paint one object without a model in anatomy, of a random kind, over what is there."""
        kind = self.rng.choice(
            ["blob", "shell", "tube", "tree", "sheet", "lobes", "group", "nested"],
            p=[0.26, 0.10, 0.16, 0.08, 0.05, 0.12, 0.11, 0.12],
        )
        getattr(self, f"_add_{kind}")()

    def field(self, low: int, high: int) -> Tensor:
        """Smooth noise with ``low`` to ``high`` bumps along each axis, standard deviation 1."""
        return smooth_field(self.size, int(self.rng.integers(low, high + 1)), self.generator)

    def centre(self) -> list[float]:
        """A place not at the very border, in voxels."""
        return [float(value) for value in self.rng.uniform(0.1, 0.9, 3) * self.size]

    def radius(self, low: float = 0.06, high: float = 0.42) -> float:
        """Log-uniform, in voxels: small structures are as frequent as large ones."""
        return float(np.exp(self.rng.uniform(math.log(low), math.log(high)))) * self.size

    def ellipsoid(self, centre: list[float], radius: float, roughness: float) -> Tensor:
        """Signed distance-like field, negative inside, in units of the radius; warped by smooth noise."""
        rotation = np.linalg.qr(self.rng.normal(size=(3, 3)))[0].astype(np.float32)
        stretch = np.exp(self.rng.uniform(-0.75, 0.75, 3)).astype(np.float32)
        offsets = torch.stack([axis - middle for axis, middle in zip(self.grid, centre, strict=True)])
        rotated = torch.einsum("ab,bkji->akji", torch.from_numpy(rotation), offsets)
        scaled = rotated / (radius * torch.from_numpy(stretch)).view(3, 1, 1, 1)
        power = float(self.rng.choice([2.0, 2.0, 2.0, 3.0, 4.0]))  # superellipsoids now and then
        distance = scaled.abs().pow(power).sum(0).pow(1 / power) - 1
        return distance + roughness * self.field(2, 8)

    def paint(self, mask: Tensor, whole: int | None = None, tissue: str = "", group: int | None = None) -> int:
        """Cover what lies under ``mask``, as a new object or as a part of ``whole``; the part's number."""
        part = max(self.wholes) + 1
        self.wholes[part] = part if whole is None else whole
        if whole is None:
            self.groups[part] = part if group is None else group
        if tissue:
            self.tissues[part] = tissue
        self.parts[mask] = part
        return part

    def _add_blob(self) -> None:
        radius = self.radius()
        field = self.ellipsoid(self.centre(), radius, float(self.rng.uniform(0, 0.3)))
        if self.rng.random() < 0.25:  # a capsule or fat around it, open in places
            rim = float(self.rng.uniform(1.0, 2.5)) / radius
            self.between.add(self.paint((field < rim) & (self.field(2, 6) > -0.5), tissue="fat"))
        self.paint(field < 0)

    def _add_shell(self) -> None:
        """A wall around a lumen: bladder, ventricle, skull."""
        radius = self.radius(0.1)
        field = self.ellipsoid(self.centre(), radius, float(self.rng.uniform(0, 0.2)))
        wall = max(float(self.rng.uniform(0.08, 0.4)), 1.5 / radius)
        whole = self.paint(field < 0)
        self.paint(field < -wall, whole)

    def _add_nested(self) -> None:
        """An organ with one to three inclusions: lesions, calyces, a core."""
        centre, radius = self.centre(), self.radius(0.12)
        field = self.ellipsoid(centre, radius, float(self.rng.uniform(0, 0.25)))
        whole = self.paint(field < 0)
        for _ in range(int(self.rng.integers(1, 4))):
            shift = self.rng.normal(size=3) * radius * 0.45
            inner = self.ellipsoid(
                [middle + float(move) for middle, move in zip(centre, shift, strict=True)],
                radius * float(self.rng.uniform(0.15, 0.5)),
                float(self.rng.uniform(0, 0.3)),
            )
            self.paint((inner < 0) & (field < 0), whole)

    def _add_lobes(self) -> None:
        """One object cut into touching lobes by smooth surfaces; each lobe is a part of the whole."""
        field = self.ellipsoid(self.centre(), self.radius(0.15), float(self.rng.uniform(0, 0.25)))
        inside = field < 0
        whole = self.paint(inside)
        cut = self.field(1, 3)
        self.paint(inside & (cut > 0), whole)
        if self.rng.random() < 0.5:
            self.paint(inside & (self.field(1, 3) > 0.3), whole)

    def _add_group(self) -> None:
        """Many small alike objects: vertebrae, nodules, nuclei. Each is a part of its own and looks like the rest."""
        radius = self.radius(0.04, 0.12)
        first = self.paint(self.ellipsoid(self.centre(), radius, 0.1) < 0)
        step = self.rng.normal(size=3)
        step *= radius * float(self.rng.uniform(2.1, 3.5)) / np.linalg.norm(step)
        in_a_row = self.rng.random() < 0.5
        centre = np.asarray(self.centre())
        for index in range(int(self.rng.integers(2, 8))):
            place = centre + step * (index - 3) if in_a_row else np.asarray(self.centre())
            self.paint(self.ellipsoid([float(v) for v in place], radius, 0.1) < 0, first)

    def _add_tube(self) -> None:
        self.paint(self.distance_to_path(self.path()) < self.radius(0.013, 0.11), tissue=self.blood_or_any())

    def _add_tree(self) -> None:
        radius = self.radius(0.014, 0.07)
        trunk = self.path()
        mask = self.distance_to_path(trunk) < radius
        for _ in range(int(self.rng.integers(1, 4))):
            start = trunk[int(self.rng.integers(len(trunk)))]
            mask |= self.distance_to_path(self.path(start)) < radius * float(self.rng.uniform(0.5, 0.9))
        self.paint(mask, tissue=self.blood_or_any())

    def blood_or_any(self) -> str:
        """Most tubes are vessels."""
        return "blood" if self.rng.random() < 0.7 else ""

    def path(self, start: np.ndarray | None = None, bend: float | None = None) -> np.ndarray:
        """A smooth random walk ``(points, 3)`` through the window, in voxels; ``bend``: change of heading a step."""
        position = np.asarray(self.centre()) if start is None else start.copy()
        heading = self.rng.normal(size=3)
        points = [position.copy()]
        bend = float(self.rng.uniform(0.1, 0.6)) if bend is None else bend
        for _ in range(int(self.rng.integers(8, 24))):
            heading = heading / np.linalg.norm(heading) + bend * self.rng.normal(size=3)
            position = position + heading / np.linalg.norm(heading) * self.size / 16
            points.append(position.copy())
        return np.asarray(points, np.float32)

    def distance_to_path(self, path: np.ndarray) -> Tensor:
        """Distance of every voxel to the poly-line, in voxels, on a grid of half resolution (tubes are smooth)."""
        dense = np.concatenate([path[:-1] + (path[1:] - path[:-1]) * t for t in (0.0, 0.34, 0.67)])
        axis = torch.arange(0, self.size, 2, dtype=torch.float32) + 0.5
        coarse = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        distance = torch.cdist(coarse, torch.from_numpy(dense.astype(np.float32))).amin(1)
        distance = distance.reshape(1, 1, *(len(axis),) * 3)
        return functional.interpolate(distance, size=(self.size,) * 3, mode="trilinear")[0, 0]

    def _add_sheet(self) -> None:
        """A curved sheet: fascia, cortex, diaphragm. Bounded, so that it is not always the whole window."""
        field = self.field(1, 3)
        gradient = torch.stack(torch.gradient(field)).norm(dim=0).clamp_min(1e-3)
        thickness = float(self.rng.uniform(1.0, 3.0))
        bound = self.ellipsoid(self.centre(), self.radius(0.25, 0.6), 0.1) < 0
        self.paint((field / gradient).abs().lt(thickness) & bound)
