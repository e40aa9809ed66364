"""Tables: what they refuse, and that nothing is lost on the way to JSON and CSV."""

from __future__ import annotations

import json

import pytest

from LKSegmentLib.inspection import Table

TABLE = Table("weights", ("slice", "z (mm)", "kernel, 3²"), ((0, -1.5, 0.25), (1, 0.0, None)), "slice", ("kernel, 3²",))


def test_a_table_survives_json() -> None:
    assert Table.from_json(json.loads(json.dumps(TABLE.as_json()))) == TABLE


def test_csv_quotes_names_with_commas_and_leaves_missing_values_empty() -> None:
    assert TABLE.as_csv().splitlines() == ['slice,z (mm),"kernel, 3²"', "0,-1.5,0.25", "1,0.0,"]


def test_a_column_is_read_by_name() -> None:
    assert TABLE.column("z (mm)") == [-1.5, 0.0]
    with pytest.raises(KeyError):
        TABLE.column("w")


@pytest.mark.parametrize(
    ("columns", "rows", "x", "y"),
    [(("a", "a"), (), None, ()), (("a", "b"), ((1,),), None, ()), (("a",), (), "b", ()), (("a",), (), "a", ("c",))],
)
def test_what_does_not_fit_together_is_refused(columns: tuple[str, ...], rows: tuple, x: str, y: tuple) -> None:
    with pytest.raises(ValueError, match="table 't'"):
        Table("t", columns, rows, x, y)
