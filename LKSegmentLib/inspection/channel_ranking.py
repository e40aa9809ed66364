"""Which channels of a map separate which label of the answer: the area under the ROC curve, channel by channel.

The ranking is made on the image that is shown. Of many channels some separate a label by chance, so that the best one
resembles it is no finding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from LKSegmentLib.inference.labels import decided
from LKSegmentLib.inference.windows import Region, Window, WindowLayout
from LKSegmentLib.packages import Manifest

from .exposed import Chosen, Exposed
from .map_storage import Float
from .tables import Cell, Table

BINS = 2048  # of the range 0 to 1; an area is exact to about 1 / BINS of the gate's spread
SHOWN = 5  # channels for each label
SENTENCE = (
    "The channels were ranked on this very image: of many channels the best one resembles the label by chance alone, "
    "so that it does is no finding. Check it on another image."
)


class ChannelRanking:
    """Gathers histograms of gates in 0 to 1, inside each label and in all, with the segmentation's weights.

    Args:
        entry: a quantity of extent "channels".
        layout: the windows over the volume.
        manifest: of the model; names the labels. None: they are numbered, and classes are taken.
    """

    def __init__(self, entry: Exposed | Chosen, layout: WindowLayout, manifest: Manifest | None = None) -> None:
        self._entry = entry.exposed if isinstance(entry, Chosen) else entry
        self._layout, self._manifest = layout, manifest
        self._inside: NDArray[np.float64] | None = None  # (labels, channels, bins)

    def add(self, window: Window, value: Float, logits: Tensor | None = None) -> None:
        """Add the gates (channels, k, j, i) of a window and its logits (labels, K, J, I).

        Raises:
            ValueError: no logits.
        """
        if logits is None:
            raise ValueError("Ranking channels by label needs the window's logits.")
        k, j, i = value.shape[1:]
        output = "classes" if self._manifest is None else self._manifest.output
        # Means over the blocks that the map's voxels stand for.
        answer = decided(functional.adaptive_avg_pool3d(logits[None].float(), (k, j, i))[0], output).ravel()
        count = logits.shape[0] + (1 if output == "regions" else 0)
        if self._inside is None:
            self._inside = np.zeros((count, value.shape[0], BINS))
        weight = self._weights(window, (k, j, i)).ravel()
        kept = weight > 0
        first = answer[kept].astype(np.int64) * BINS
        for channel, gates in enumerate(value.reshape(value.shape[0], -1)[:, kept]):
            bins = np.clip((gates * BINS).astype(np.int64), 0, BINS - 1)
            counted = np.bincount(first + bins, weight[kept], count * BINS)
            self._inside[:, channel] += counted.reshape(count, BINS)

    def finished(self) -> Table:
        """The table: for each label the channels that separate it best, and how."""
        entry = self._entry
        inside = np.zeros((0, 0, BINS)) if self._inside is None else self._inside
        everywhere = inside.sum(0)
        values = (np.arange(BINS) + 0.5) / BINS
        rows: list[tuple[Cell, ...]] = []
        missing = []
        for label in range(1, len(inside)):
            name = self._name(label)
            elsewhere = everywhere - inside[label]
            if not inside[label, 0].any() or not elsewhere[0].any():
                missing.append(name)
                continue
            areas = areas_under_roc(inside[label], elsewhere)
            for rank, channel in enumerate(np.argsort(-np.abs(areas - 0.5), kind="stable")[:SHOWN]):
                means = [float(one[channel] @ values / one[channel].sum()) for one in (inside[label], elsewhere)]
                rows.append((name, rank + 1, int(channel), round(float(areas[channel]), 4), *means))
        columns = ("label", "rank", "channel", "area under ROC", "mean inside", "mean elsewhere")
        return Table(entry.name, columns, tuple(rows), None, (), self._passport(everywhere.shape[0], missing))

    def _weights(self, window: Window, shape: tuple[int, int, int]) -> NDArray[np.float64]:
        """The segmentation's weights at the map's voxels (k, j, i); 0 outside the volume."""
        inside = Region((0, 0, 0), self._layout.shape).overlap(window)
        along = []
        for axis, count in enumerate(shape):
            full = np.array(self._layout.weights[axis], np.float64)
            voxel = np.arange(len(full)) + window.lower[axis]
            if inside is None:
                full[:] = 0
            else:
                full[(voxel < inside.lower[axis]) | (voxel >= inside.upper[axis])] = 0
            pooled = functional.adaptive_avg_pool1d(torch.from_numpy(full)[None, None], count)
            along.append(pooled[0, 0].numpy())
        return along[0][:, None, None] * (along[1][:, None] * along[2])

    def _name(self, label: int) -> str:
        names = {} if self._manifest is None else {one.value: one.name for one in self._manifest.labels}
        return names.get(label, f"label {label}")

    def _passport(self, channels: int, missing: list[str]) -> dict[str, Any]:
        entry = self._entry
        passport: dict[str, Any] = {"name": entry.name}
        if self._manifest is not None:
            passport |= {"model": self._manifest.name, "network": self._manifest.network}
        passport |= {
            "layer": ", ".join(entry.layers),
            **entry.meaning,
            "sentence": SENTENCE,
            "channels compared": channels,
            "windows": self._layout.count,
            "stitching": "histograms over all windows, weighted as the segmentation; the label is each window's own",
        }
        if missing:
            passport["labels not in the answer"] = missing
        return passport


def areas_under_roc(inside: NDArray[np.float64], elsewhere: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under the ROC curve of each channel from weighted histograms (channels, bins); equal bins count half.

    1: every value inside is larger than every one elsewhere; 0.5: they cannot be told apart.
    """
    below = np.cumsum(elsewhere, axis=1) - elsewhere / 2
    areas: NDArray[np.float64] = (inside * below).sum(1) / (inside.sum(1) * elsewhere.sum(1))
    return areas
