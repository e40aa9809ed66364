"""What a network can show of itself, and the choice among it: which tensors are read and what they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from LKSegmentLib.errors import InputError

Extent = Literal["voxels", "window", "slices", "channels"]
Read = Callable[[Sequence[Tensor]], Tensor]

_BY_LABEL = 'Gradient-based maps are named with a label: "class activation, LABEL", "gradient times image, LABEL".'
_CHANNEL = re.compile(r"^(?P<name>.*\S)\s*#(?P<channel>\d+)$")


@dataclass(frozen=True)
class Exposed:
    """One quantity that a network computes and that can be shown.

    Attributes:
        name: what people call it; unique within a network.
        layers: the modules whose outputs are read, in the order in which they run.
        read: their outputs → (channels, k, j, i), or (channels,) where it is pooled over the window. It is called
            as soon as the last of the layers has answered and must not change what it is given.
        extent: over what the quantity varies. "voxels": a map on the layer's grid. "window": one number a
            channel for the whole window. The other two have no place and become tables: "slices", numbers for each
            slice along k, `read` gives (channels, slices); "channels", a map for each channel, of which it is told
            how well each separates the labels of the answer.
        stride: window voxels from one voxel of the map to the next.
        offset: where the map's voxel 0 is centred, in window voxels; see `maps.reduced_grid`.
        channels: how many there are to choose from; "NAME #5" is channel 5.
        summary: whether "NAME" alone means the mean over the channels; else a channel must be chosen.
        default: whether it is shown when nothing is asked for by name.
        columns: of "slices": what each of the channels is called; empty where the number of channels is that of
            the window's slices (a matrix).
        drawn: of "slices": the columns that a plot shows.
        apart: of "slices": the windows are listed one after the other, because their numbers do not meet.
        meaning: the part of the passport that says what the numbers are: operator, kind, unit, range, neutral,
            identifiable.
    """

    name: str
    layers: tuple[str, ...]
    read: Read
    meaning: dict[str, Any]
    extent: Extent = "voxels"
    stride: int = 1
    offset: float = 0.0
    channels: int = 1
    summary: bool = True
    default: bool = False
    columns: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    apart: bool = False

    @property
    def is_table(self) -> bool:
        """Whether it has no place in the image and becomes a table."""
        return self.extent in ("slices", "channels")

    @property
    def words(self) -> str:
        """The name, and which channels there are."""
        if self.is_table:
            return f"{self.name} (a table)"
        if self.channels == 1:
            return self.name
        if self.summary:
            return f"{self.name} (or one channel: #0 to #{self.channels - 1})"
        return f"{self.name} #0 to #{self.channels - 1}"


@dataclass(frozen=True)
class Chosen:
    """An exposed quantity with one of its channels, or (None) the mean over them."""

    exposed: Exposed
    channel: int | None = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        chosen = "" if self.channel is None else f" #{self.channel}"
        object.__setattr__(self, "name", f"{self.exposed.name}{chosen}")

    def value(self, outputs: Sequence[Tensor]) -> Tensor:
        """Outputs of the layers → float32 (k, j, i), or () where the quantity is pooled over the window.

        What becomes a table stays whole: (channels, slices) or (channels, k, j, i).
        """
        every = self.exposed.read(outputs)
        if self.exposed.is_table:
            return every.float()
        if self.channel is not None:
            return every[self.channel].float()
        return every[0].float() if self.exposed.channels == 1 else every.mean(0, dtype=torch.float32)


def choose(exposed: Sequence[Exposed], names: Sequence[str] | None, model: str) -> list[Chosen]:
    """The quantities with these names ("NAME" or "NAME #channel"), in this order; None: the default ones.

    Raises:
        InputError: a model with nothing to show, an unknown name or channel (the sentence lists those that exist).
    """
    if not exposed:
        raise InputError(
            f'The model "{model}" has nothing to show of itself: its network has no gates or attention that LKSegment '
            f"knows. {_BY_LABEL} Its reach can be shown, too."
        )
    if names is None:
        return [Chosen(entry) for entry in exposed if entry.default]
    if isinstance(names, str):
        names = [names]
    if not names:
        raise InputError(f"Name at least one map. {_listed_of(exposed, model)}")
    return [_chosen(exposed, name, model) for name in dict.fromkeys(names)]


def _chosen(exposed: Sequence[Exposed], name: str, model: str) -> Chosen:
    by_name = {entry.name: entry for entry in exposed}
    match = None if name in by_name else _CHANNEL.match(name)
    plain = match["name"] if match else name
    if plain not in by_name:
        close = [entry for entry in exposed if plain.lower() in entry.name.lower()]
        listed = f"Names with these words: {_listed(close)}." if close else f"{_listed_of(exposed, model)} {_BY_LABEL}"
        raise InputError(f"There is no map {name!r}. {listed}")
    entry = by_name[plain]
    if entry.is_table and match is not None:
        raise InputError(f"{plain!r} is a table and is shown whole: leave out #{match['channel']}.")
    if match is None:
        if not entry.summary and not entry.is_table:
            raise InputError(
                f"{plain!r} has {entry.channels} channels whose mean means nothing: choose one, "
                f"{plain} #0 to #{entry.channels - 1}."
            )
        return Chosen(entry)
    channel = int(match["channel"])
    if channel >= entry.channels:
        there = f"#0 to #{entry.channels - 1}" if entry.channels > 1 else "no channels to choose from"
        raise InputError(f"{plain!r} has {there}; there is no channel {channel}.")
    return Chosen(entry, channel if entry.channels > 1 else None)


def _listed_of(exposed: Sequence[Exposed], model: str) -> str:
    return f'The model "{model}" shows: {_listed(exposed)}.'


def _listed(exposed: Sequence[Exposed]) -> str:
    return "; ".join(entry.words for entry in exposed)
