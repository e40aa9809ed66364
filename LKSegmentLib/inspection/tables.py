"""Numbers that have no place in the image: kernel weights a slice, radial profiles, means inside a segment, curves.

Plain Python, without torch: the panel, the report and the command line read tables too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = float | int | str | None


@dataclass(frozen=True)
class Table:
    """Named columns of numbers or words, with a passport like that of a map.

    Attributes:
        name: unique among the tables of one inspection.
        columns: names with their units, such as "slice", "z (mm)", "share of 3²".
        rows: one value a column; None where there is none.
        x: the column that is the horizontal axis when the table is drawn; None: it is no curve.
        y: the columns that are drawn over it, one line each.
        passport: what the numbers are, JSON-ready; the same keys as of a map where they apply.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    x: str | None = None
    y: tuple[str, ...] = ()
    passport: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"Two columns of the table {self.name!r} have the same name: {', '.join(self.columns)}.")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"A row of the table {self.name!r} has {len(row)} values for {len(self.columns)} columns."
                )
        for column in (*((self.x,) if self.x is not None else ()), *self.y):
            if column not in self.columns:
                raise ValueError(f"The table {self.name!r} has no column {column!r} to draw.")

    def column(self, name: str) -> list[Cell]:
        """The values of one column, top to bottom. KeyError when there is none."""
        if name not in self.columns:
            raise KeyError(name)
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def as_json(self) -> dict[str, Any]:
        """JSON-ready; `from_json` gives the same table again."""
        return {
            "name": self.name,
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
            "x": self.x,
            "y": list(self.y),
            "passport": self.passport,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Table:
        """The table of `as_json`. Raises KeyError, TypeError or ValueError for anything else."""
        rows: Sequence[Sequence[Cell]] = value["rows"]
        return cls(
            str(value["name"]),
            tuple(str(name) for name in value["columns"]),
            tuple(tuple(row) for row in rows),
            None if value["x"] is None else str(value["x"]),
            tuple(str(name) for name in value["y"]),
            dict(value["passport"]),
        )

    def as_csv(self) -> str:
        """Comma-separated, a line of names first; text in quotes where it needs them."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return out.getvalue()
