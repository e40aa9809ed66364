"""Volumes, masks and transforms for the tests of this folder."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from LKSegmentLib.scene.core import SceneContext
from LKSegmentLib.scene.geometry import to_vtk_matrix
from LKSegmentLib.scene.volumes import add_volume_node
from LKSegmentLib.volumes import Volume


@dataclass(frozen=True)
class Box:
    """A mask's bounding box, as a click session returns it."""

    lower: tuple[int, int, int]
    array: np.ndarray

    def full(self, shape: tuple[int, int, int]) -> np.ndarray:
        mask = np.zeros(shape, dtype=bool)
        mask[tuple(slice(a, a + n) for a, n in zip(self.lower, self.array.shape, strict=True))] = self.array > 0
        return mask


EMPTY_BOX = Box((0, 0, 0), np.zeros((0, 0, 0), dtype=np.uint8))


def random_box(seed: int, lower: tuple[int, int, int] = (2, 3, 4), shape: tuple[int, int, int] = (5, 6, 7)) -> Box:
    return Box(lower, (np.random.default_rng(seed).random(shape) > 0.5).astype(np.uint8))


def solid_box(lower: tuple[int, int, int], shape: tuple[int, int, int]) -> Box:
    return Box(lower, np.ones(shape, dtype=np.uint8))


def image_of(matrix: np.ndarray, shape: tuple[int, int, int] = (12, 14, 16), seed: int = 0) -> Volume:
    return Volume(np.random.default_rng(seed).integers(-500, 500, shape).astype(np.int16), matrix)


def add_image(context: SceneContext, matrix: np.ndarray | None = None, name: str = "CT", **more: Any) -> Any:
    return add_volume_node(context, image_of(OBLIQUE if matrix is None else matrix, **more), name)


def add_transform(context: SceneContext, matrix: np.ndarray, name: str = "moved") -> Any:
    node = context.add_node("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(to_vtk_matrix(matrix))
    return node


def rotation(degrees: float, axis: tuple[float, float, float]) -> np.ndarray:
    """4x4 rotation about an axis through the origin (Rodrigues)."""
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix


def placed(
    directions: np.ndarray, spacing: tuple[float, float, float], origin: tuple[float, float, float]
) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = directions @ np.diag(spacing)
    matrix[:3, 3] = origin
    return matrix


OBLIQUE = placed(rotation(25, (0.3, -0.5, 0.8))[:3, :3], (0.9, 1.1, 2.5), (-40.0, 60.0, 1200.0))

MOVED = rotation(33, (1.0, 0.4, -0.2))
MOVED[:3, 3] = (17.0, -9.0, 31.0)
OTHER = rotation(-14, (0.1, 1.0, 0.3))
OTHER[:3, 3] = (-5.0, 12.0, 3.0)


def axis_orders() -> list[np.ndarray]:
    """The 48 ways to lay three axes along ± R, A, S."""
    orders = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            directions = np.zeros((3, 3))
            for axis, (along, sign) in enumerate(zip(order, signs, strict=True)):
                directions[along, axis] = sign
            orders.append(directions)
    return orders
