"""The form in which the facts of a network are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Published:
    """One figure the authors print, beside the exact one, and why the two differ.

    Attributes:
        quantity: what was counted ("parameters", "FLOPs", "Dice, AMOS").
        figure: as printed.
        note: the convention behind it, or how far it can be reproduced.
    """

    quantity: str
    figure: str
    note: str


@dataclass(frozen=True)
class NetworkFacts:
    """The passport of a network.

    Attributes:
        title: the name the authors use.
        summary: one sentence for a list.
        status: "exact" (the published network, tensor for tensor), "reconstruction" (parts are inferred),
            "own" (designed in this project) or "baseline" (taken from a library as it is).
        status_note: what exactly is firm and what is not.
        citation: paper, and repository with the commit that was read.
        licence: what may be done with the authors' code and weights.
        reference: the configuration that `parameters` and the published figures refer to: arguments of
            `create`.
        reference_size: input size (k, j, i) at which multiply-accumulates are counted.
        size_multiple: each size of an input must be a multiple of it, in the reference configuration.
        minimum_size: the smallest size of an input, likewise.
        parameters: exact count in the reference configuration; a test counts again. None: counted when asked.
        macs: exact multiply-accumulates at `reference_size`, likewise.
        published: the authors' figures.
        receptive_note: what is special about its receptive fields, a sentence.
        known_problems: of the published code or paper.
        deviations: where this implementation departs from the published one.
        remarks: anything else a user of the network should know.
    """

    title: str
    summary: str
    status: Literal["exact", "reconstruction", "own", "baseline"]
    status_note: str
    citation: str
    licence: str
    reference: dict[str, Any]
    reference_size: tuple[int, int, int]
    size_multiple: int
    minimum_size: int
    parameters: int | None = None
    macs: int | None = None
    published: tuple[Published, ...] = ()
    receptive_note: str = ""
    known_problems: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
