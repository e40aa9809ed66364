"""Objects built as bodies build them: spines, bones, ribs, gut, vessels side by side, muscles, heads.

Nobody's anatomy: sizes, bends, places and numbers are random. What they share with a body is how things hang together:
a cortex around marrow, vertebrae that touch, fat between muscles that look alike, a wall around mixed contents. Every
function paints over the `Layout` it is given; lengths are voxels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .shapes import Layout


def add_spine(layout: Layout) -> None:
    """Vertebrae with arches and processes, discs between them, a canal with its cord behind the bodies."""
    rng = layout.rng
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)
    along, side, back = (torch.from_numpy(axis) for axis in np.ascontiguousarray(axes.T))
    offsets = torch.stack([axis - middle for axis, middle in zip(layout.grid, layout.centre(), strict=True)], -1)
    height = offsets @ along
    bend = float(rng.normal()) * 0.25 / layout.size
    radius = layout.radius(0.06, 0.17)
    rough = 0.06 * layout.field(5, 10)
    across = (offsets @ side - bend * height**2) / radius
    behind = (offsets @ back - bend * float(rng.normal()) * height**2) / radius
    step = radius * float(rng.uniform(1.1, 1.9))
    number = torch.floor(height / step)
    local = (height / step - number - 0.5).abs()
    solid = float(rng.uniform(0.36, 0.46))  # half the height of a body, of a step
    waist = 1 - 0.15 * torch.cos(local * 2 * np.pi) * float(rng.random())
    body = torch.hypot(across / float(rng.uniform(1.0, 1.4)), behind) / waist - 1 + rough
    width = float(rng.uniform(0.35, 0.6))  # of the canal
    canal = torch.hypot(across, behind - 1 - width)
    arch = (canal > width) & (canal < width + float(rng.uniform(0.25, 0.5))) & (local < solid * 0.85)
    slant = float(rng.uniform(-0.25, 0.1))
    shifted = (height / step - number - 0.5 - slant * (behind - 2)).abs()
    tip = float(rng.uniform(2.4, 3.6))
    spinous = (across.abs() < 0.22) & (behind > 1 + 2 * width) & (behind < tip) & (shifted < 0.3)
    reach = float(rng.uniform(1.6, 2.4))
    transverse = ((behind - 1.1).abs() < 0.28) & (across.abs() < reach) & (across.abs() > 0.5) & (local < 0.2)
    bodies = (body < 0) & (local < solid)
    cortex = float(rng.uniform(0.8, 2.0))
    marrow = (body < -cortex / radius) & (local < solid - cortex / step)
    numbers = range(int(number.min()), int(number.max()) + 1)
    group: int | None = None
    for index in numbers:
        here = number == index
        bone = here & (bodies | arch | spinous | transverse)
        if not bone.any():
            continue
        whole = layout.paint(bone, tissue="cortex", group=group)
        group = whole if group is None else group
        layout.undivided.add(whole)
        layout.paint(here & marrow, whole, tissue="marrow")
    discs = (body < 0.02) & (local >= solid)
    for index in numbers:
        disc = discs & ((height / step - 0.5 - index).abs() < 0.5)
        if disc.any():
            layout.paint(disc, tissue="disc")
    layout.paint(canal < width, tissue="fluid")
    layout.paint(canal < width * float(rng.uniform(0.55, 0.8)), tissue="soft")


def add_long_bone(layout: Layout) -> None:
    """A shaft with a thick head at one end: cortex outside, marrow inside, all one bone."""
    rng = layout.rng
    path = layout.path(bend=0.05)
    distance = layout.distance_to_path(path)
    radius = layout.radius(0.04, 0.12)
    head = layout.ellipsoid([float(v) for v in path[-1]], radius * float(rng.uniform(1.2, 2.2)), 0.08)
    shape = torch.minimum(distance / radius - 1, head)
    thickness = float(rng.uniform(0.8, 2.5)) / radius
    whole = layout.paint(shape < 0, tissue="cortex")
    layout.undivided.add(whole)
    layout.paint(shape < -thickness, whole, tissue="marrow")
    if rng.random() < 0.5:  # the socket: a bone of its own, a thin gap away
        gap = head - float(rng.uniform(1.5, 3.0)) / radius
        socket = (gap > 0) & (gap < float(rng.uniform(0.3, 0.8))) & (layout.field(1, 3) > 0)
        other = layout.paint(socket, tissue="cortex")
        layout.undivided.add(other)
        layout.paint(socket & (gap > thickness) & (gap < 0.6), other, tissue="marrow")


def add_flat_bone(layout: Layout) -> None:
    """A bent plate with a cortex on both faces: pelvis, scapula, skull."""
    rng = layout.rng
    field = layout.field(1, 3)
    slope = torch.stack(torch.gradient(field)).norm(dim=0).clamp_min(1e-3)
    thickness = layout.radius(0.02, 0.09)
    bound = layout.ellipsoid(layout.centre(), layout.radius(0.2, 0.6), 0.25)
    depth = torch.maximum((field / slope).abs() / thickness - 1 + 0.3 * layout.field(2, 6), bound)
    whole = layout.paint(depth < 0, tissue="cortex")
    layout.undivided.add(whole)
    layout.paint(depth < -float(rng.uniform(0.8, 2.0)) / thickness, whole, tissue="marrow")


def add_ribs(layout: Layout) -> None:
    """Several arcs side by side, each a bone of its own."""
    rng = layout.rng
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    centre = np.asarray(layout.centre())
    large, radius = layout.radius(0.3, 0.8), layout.radius(0.018, 0.05)
    begin, end = rng.uniform(-np.pi, 0), rng.uniform(0.3, np.pi)
    angles = np.linspace(begin, end, 40)
    tilt = float(rng.normal()) * 0.4
    apart = radius * float(rng.uniform(3, 7))
    first: int | None = None
    for index in range(int(rng.integers(1, 6))):
        height = tilt * large * angles + index * apart
        arc = np.stack([large * np.cos(angles), 0.8 * large * np.sin(angles), height], -1)
        distance = layout.distance_to_path((centre + arc @ axes.T).astype(np.float32))
        bone = distance < radius * (1 + 0.25 * layout.field(3, 8))
        whole = layout.paint(bone, tissue="cortex", group=first)
        first = whole if first is None else first
        layout.undivided.add(whole)
        if radius > 2.5:
            layout.paint(distance < radius - 1.5, whole, tissue="marrow")


def add_gut(layout: Layout) -> None:
    """A bent tube with a wall and contents that change along it: gas over fluid, paste, nothing."""
    rng = layout.rng
    radius = layout.radius(0.05, 0.16)
    distance = layout.distance_to_path(layout.path(bend=float(rng.uniform(0.2, 0.7))))
    distance = distance / (1 + float(rng.uniform(0.05, 0.3)) * layout.field(4, 10))
    whole = layout.paint(distance < radius, tissue="soft")
    layout.undivided.add(whole)
    lumen = distance < radius - float(rng.uniform(1.0, 3.0))
    layout.paint(lumen, whole, tissue=str(rng.choice(["fluid", "soft", "paste"])))
    if rng.random() < 0.6:
        up = torch.from_numpy(rng.normal(size=3).astype(np.float32))
        level = sum(axis * part for axis, part in zip(layout.grid, up / up.norm(), strict=True))
        gas = (level - layout.centre()[0] + 6 * layout.field(1, 3)) > 0
        layout.paint(lumen & gas, whole, tissue="air")
    if rng.random() < 0.4:
        layout.paint(lumen & (layout.field(3, 8) > 0.8), whole, tissue="paste")


def add_vessels(layout: Layout) -> None:
    """An artery and a vein that run side by side and touch; now and then a branch."""
    rng = layout.rng
    path = layout.path(bend=float(rng.uniform(0.05, 0.4)))
    one, other = layout.radius(0.012, 0.09), layout.radius(0.012, 0.09)
    sideways = rng.normal(size=3)
    sideways *= (one + other) * float(rng.uniform(0.85, 1.4)) / np.linalg.norm(sideways)
    artery = layout.distance_to_path(path) < one
    vein = layout.distance_to_path(path + sideways.astype(np.float32)) < other
    if rng.random() < 0.5:
        branch = layout.path(path[int(rng.integers(len(path)))])
        artery |= layout.distance_to_path(branch) < one * float(rng.uniform(0.5, 0.9))
    layout.paint(vein, tissue="vein")
    whole = layout.paint(artery, tissue="blood")
    layout.undivided.add(whole)
    if rng.random() < 0.2:  # plaque on the wall
        layout.paint(artery & (layout.field(6, 12) > 1.5), whole, tissue="cortex")


def add_muscles(layout: Layout) -> None:
    """Long cells of one tissue, packed, with fat planes between them that are thin and open in places."""
    rng = layout.rng
    bound = layout.ellipsoid(layout.centre(), layout.radius(0.25, 0.6), 0.15) < 0
    along = rng.normal(size=3)
    along /= np.linalg.norm(along)
    squeeze = np.eye(3) - (1 - float(rng.uniform(0.15, 0.5))) * np.outer(along, along)
    coordinates = torch.stack([axis + 4 * layout.field(2, 5) for axis in layout.grid], -1)
    seeds = rng.uniform(0, layout.size, (int(rng.integers(4, 14)), 3))
    matrix = torch.from_numpy(squeeze.astype(np.float32))
    points = torch.from_numpy(seeds.astype(np.float32)) @ matrix
    distance = torch.cdist((coordinates @ matrix).reshape(-1, 3), points)
    nearest = distance.topk(2, dim=1, largest=False)
    gap = (nearest.values[:, 1] - nearest.values[:, 0]).reshape(bound.shape)
    cell = nearest.indices[:, 0].reshape(bound.shape)
    for index in range(len(seeds)):
        muscle = bound & (cell == index)
        if muscle.any():
            layout.paint(muscle, tissue="muscle")
    planes = bound & (gap < float(rng.uniform(0.5, 4.0)) * (0.5 + layout.field(2, 6)))
    layout.between.add(layout.paint(planes, tissue="fat"))


def add_organ_with_vessels(layout: Layout) -> None:
    """A large even organ, a tree of vessels inside that belongs to it, now and then a lesion."""
    rng = layout.rng
    centre, radius = layout.centre(), layout.radius(0.18, 0.42)
    organ = layout.ellipsoid(centre, radius, float(rng.uniform(0.05, 0.35))) < 0
    if rng.random() < 0.4:  # an impression, as neighbours leave
        organ &= layout.ellipsoid([v + float(rng.normal()) * radius for v in centre], radius * 0.8, 0.1) > 0
    whole = layout.paint(organ, tissue="organ")
    trunk = layout.path(np.asarray(centre))
    for _ in range(int(rng.integers(1, 4))):
        branch = layout.path(trunk[int(rng.integers(len(trunk)))])
        layout.paint(organ & (layout.distance_to_path(branch) < layout.radius(0.01, 0.03)), whole, tissue="vein")
    if rng.random() < 0.4:
        spot = [v + float(rng.normal()) * 0.4 * radius for v in centre]
        lesion = layout.ellipsoid(spot, radius * float(rng.uniform(0.1, 0.4)), 0.2)
        layout.paint(organ & (lesion < 0), whole)


def add_head(layout: Layout) -> None:
    """Shells around a folded sheet: bone, fluid, grey over white matter, fluid-filled hollows, nuclei, lesions."""
    rng = layout.rng
    centre, radius = layout.centre(), layout.radius(0.3, 0.6)
    outer = layout.ellipsoid(centre, radius, 0.05)
    layout.paint(outer < 0.16, tissue="cortex")
    layout.paint(outer < 0.06, tissue="fluid")
    folds = float(rng.uniform(0.08, 0.25)) * layout.field(8, 14).abs()
    brain = outer + folds
    grey = layout.paint(brain < 0, tissue="grey")
    layout.paint(brain < -float(rng.uniform(0.08, 0.2)), tissue="white", group=grey)
    for _ in range(int(rng.integers(2, 7))):
        spot = [v + float(rng.normal()) * 0.35 * radius for v in centre]
        nucleus = layout.ellipsoid(spot, radius * float(rng.uniform(0.06, 0.25)), 0.2)
        inside = (nucleus < 0) & (brain < -0.1)
        layout.paint(inside, tissue=str(rng.choice(["fluid", "grey", "grey", "lesion"])), group=grey)


ADDITIONS: tuple[tuple[Callable[[Layout], None], float], ...] = (
    (add_spine, 0.15),
    (add_long_bone, 0.09),
    (add_flat_bone, 0.11),
    (add_ribs, 0.07),
    (add_gut, 0.16),
    (add_vessels, 0.13),
    (add_muscles, 0.12),
    (add_organ_with_vessels, 0.12),
    (add_head, 0.05),
)


def add_anatomy(layout: Layout) -> None:
    """One of the above, by chance."""
    functions, shares = zip(*ADDITIONS, strict=True)
    functions[int(layout.rng.choice(len(functions), p=np.asarray(shares)))](layout)
