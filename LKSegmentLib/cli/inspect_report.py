"""The report of an inspection: one HTML page that needs nothing but itself, readable in light and dark.

Pictures are in the page as data, curves as SVG; nothing is loaded from anywhere, and no script runs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from LKSegmentLib.cli.curves import curve_svg
from LKSegmentLib.inspection import Map, Table
from LKSegmentLib.inspection.maps import CASE, SENTENCE, WINDOW_VALUES
from LKSegmentLib.inspection.probe import has_place

_MOST_ROWS = 200
_MOST_TEXT = 400  # characters of one value in a passport; the JSON file has all of it
_ABOVE_THE_TABLE = ("sentence", "name")
_NO_TEST = ("gradient", "difference", "disagreement of windows")  # kinds that `evaluate maps` does not know

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --line: #d7dade; --soft: #f3f4f6; --note: #fff4d6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e9; --paper: #17191c; --line: #3a3e44; --soft: #22252a; --note: #3a3115; }
}
body { margin: 0 auto; max-width: 1000px; padding: 0 16px 48px; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6em; margin: 20px 0 4px; } h2 { font-size: 1.2em; margin: 36px 0 8px; }
.always { position: sticky; top: 0; background: var(--note); border-bottom: 1px solid var(--line);
  margin: 0 -16px; padding: 8px 16px; font-weight: 600; }
.worth { background: var(--soft); padding: 8px 12px; border-left: 4px solid var(--line); }
.wide { overflow-x: auto; }
img { display: block; width: 100%; height: auto; background: #000; }
figure { margin: 0 0 12px; } figcaption, .small { font-size: 0.88em; }
table { border-collapse: collapse; font-size: 0.88em; margin: 8px 0; }
th, td { border: 1px solid var(--line); padding: 3px 8px; text-align: left; vertical-align: top; }
th { background: var(--soft); font-weight: 600; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
svg.curve { display: block; width: 100%; max-width: 640px; height: auto; }
svg.curve text { fill: currentColor; font-size: 12px; } svg.curve .grid { stroke: var(--line); stroke-width: 1; }
"""


@dataclass(frozen=True)
class Picture:
    """A map with its picture (PNG) and what tests say about it; `worth` None: it was not tested with these weights."""

    map: Map
    png: bytes
    shown_as: str
    worth: str | None = None


@dataclass(frozen=True)
class Report:
    """What the page tells, in its order.

    Attributes:
        title: what was inspected.
        facts: about image and model, name to words.
        sentences: said before the pictures, such as the reach in words.
        pictures: of the maps.
        kind: what the pictures are.
        tables: with the name of the CSV file of each.
        files: what else lies in the folder, names only.
    """

    title: str
    facts: Mapping[str, str]
    pictures: Sequence[Picture]
    kind: str
    sentences: Sequence[str] = ()
    tables: Sequence[tuple[Table, str]] = ()
    files: Sequence[str] = field(default_factory=list)

    def html(self) -> str:
        """The page."""
        parts = [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>",
            f'<p class="always">{escape(SENTENCE)}</p>',
            f"<h1>{escape(self.title)}</h1>",
            _pairs(self.facts),
            *(f"<p>{escape(sentence)}</p>" for sentence in self.sentences),
            *(_picture(picture, self.kind) for picture in self.pictures),
            *(_table(table, file) for table, file in self.tables),
        ]
        if self.files:
            parts.append(f'<h2>Files</h2><p class="small">{escape(", ".join(self.files))}</p>')
        return "\n".join([*parts, "</body></html>\n"])


def _picture(picture: Picture, kind: str) -> str:
    found = picture.map
    data = base64.b64encode(picture.png).decode("ascii")
    passport = {key: value for key, value in found.passport.items() if key not in _ABOVE_THE_TABLE}
    if CASE in passport:
        passport[CASE] = _case_words(passport[CASE])
    worth = picture.worth or _untested(found)
    sentence = found.passport.get("sentence", SENTENCE)
    views = kind if has_place(found) else "The kernel by itself"
    return "\n".join(
        [
            f"<section><h2>{escape(found.name)}</h2>",
            f'<figure><img alt="{escape(found.name, True)}" src="data:image/png;base64,{data}">',
            f"<figcaption>{escape(views)}. {escape(picture.shown_as)} {escape(str(sentence))}</figcaption></figure>",
            f'<p class="worth">{escape(worth)}</p>',
            f"{_pairs({key: _words(value) for key, value in passport.items()})}</section>",
        ]
    )


def _untested(found: Map) -> str:
    if found.passport.get("kind") in _NO_TEST or WINDOW_VALUES in found.passport or not has_place(found):
        return "There is no test of what a map of this kind is worth."
    return "What this map is worth was not tested with these weights (lksegment evaluate maps)."


def _case_words(case: Mapping[str, float]) -> str:
    least, low, high, most = (number_words(case[key]) for key in ("least", "low", "high", "most"))
    return f"{least} to {most}; 2 % of the voxels are below {low}, 99.8 % below {high}"


def _table(table: Table, file: str) -> str:
    parts = [f"<section><h2>{escape(table.name)}</h2>"]
    for key in ("operator", "sentence"):
        if table.passport.get(key):
            parts.append(f'<p class="small">{escape(str(table.passport[key]))}</p>')
    curve = curve_svg(table)
    if curve is not None:
        parts.append(curve)
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = ["".join(_cell(cell) for cell in row) for row in table.rows[:_MOST_ROWS]]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    parts.append(f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>')
    left_out = len(table.rows) - len(rows)
    more = f"; {left_out} rows more are" if left_out else ""
    parts.append(f'<p class="small">All of it{more} in {escape(file)}.</p></section>')
    return "\n".join(parts)


def _cell(value: Any) -> str:
    if value is None:
        return "<td>–</td>"
    if isinstance(value, (int, float)):
        return f'<td class="number">{number_words(value)}</td>'
    return f"<td>{escape(str(value))}</td>"


def number_words(value: float) -> str:
    """A number as short as it can be told: whole ones in full, others to four digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.4g}"


def _pairs(values: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in values.items())
    return f'<div class="wide"><table>{rows}</table></div>'


def _words(value: Any) -> str:
    """A value of a passport as a person reads it."""
    if value is None:
        return "none"
    if isinstance(value, str):
        words = value
    elif isinstance(value, float):
        words = number_words(value)
    elif isinstance(value, Mapping):
        words = "; ".join(f"{key}: {_words(inner)}" for key, inner in value.items())
    elif isinstance(value, (list, tuple)):
        simple = all(inner is None or isinstance(inner, (int, float, str)) for inner in value)
        words = (", " if simple else " | ").join("open" if inner is None else _words(inner) for inner in value)
    else:
        words = json.dumps(value, default=str)
    return words if len(words) <= _MOST_TEXT else f"{words[:_MOST_TEXT]} … (all of it in the JSON file)"
