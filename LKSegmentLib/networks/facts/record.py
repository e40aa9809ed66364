"""The form in which the facts of a network are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
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
        parameters: exact count in the reference configuration (checked by a test); None: counted at run time
            only.
        gmacs: exact multiply-accumulates, in 10⁹, at `reference_size` (checked by a test), or None likewise.
        published: the authors' figures.
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
    parameters: int | None = None
    gmacs: float | None = None
    published: tuple[Published, ...] = ()
    known_problems: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default_factory=tuple)
