"""Scores of click methods on real structures, as rows, means, JSON and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Volume

from .click_scores import CLICKS, ClickMethod, Structure, click_through, same_clicks


@dataclass(frozen=True)
class ClickScore:
    """Dice of one structure after each click, of the method and, where there is one, of the baseline.

    ``baseline`` corrects its own errors; ``baseline_same`` got the very clicks that corrected the method.
    """

    case: str
    value: int
    name: str
    voxels: int
    dice: list[float]
    baseline: list[float] | None = None
    baseline_same: list[float] | None = None


def score(
    structures: Sequence[Structure],
    method: ClickMethod,
    baseline: ClickMethod | None = None,
    names: Mapping[tuple[str, int], str] | None = None,
    clicks: int = max(CLICKS),
    progress: Callable[[str, float], None] | None = None,
    watch: Callable[[Structure, str, NDArray[np.bool_]], None] | None = None,
) -> list[ClickScore]:
    """Click through every structure with the method, and with the baseline in both ways.

    ``watch(structure, name, mask)`` sees the method's mask after every click.
    """
    rows = []
    for number, structure in enumerate(structures):
        name = (names or {}).get((structure.case, structure.value), str(structure.value))
        if progress is not None:
            progress(f"{structure.case}: {name}", number / len(structures))
        own = same = None

        def answer(volume: Volume, points: Sequence[Point]) -> NDArray[np.bool_]:
            mask = np.asarray(method(volume, points), bool)
            if watch is not None:
                watch(structure, name, mask)  # noqa: B023 (called before the loop goes on)
            return mask

        if baseline is None:
            dice = click_through(answer, structure, clicks)
        else:
            dice, same = same_clicks(answer, baseline, structure, clicks)
            own = click_through(baseline, structure, clicks)
        rows.append(ClickScore(structure.case, structure.value, name, int(structure.target.sum()), dice, own, same))
    return rows


def means(rows: Sequence[ClickScore]) -> dict[str, Any]:
    """Mean Dice after 1, 3, 5 and 10 clicks: of the method, and of the baseline where it was scored."""
    counts = [count for count in CLICKS if count <= len(rows[0].dice)] if rows else []
    result: dict[str, Any] = {"structures": len(rows), "clicks": counts}
    for field in ("dice", "baseline", "baseline_same"):
        curves = [getattr(row, field) for row in rows if getattr(row, field) is not None]
        if curves:
            mean = np.asarray(curves).mean(0)
            result[field] = [round(float(mean[count - 1]), 3) for count in counts]
    return result


def as_json(rows: Sequence[ClickScore]) -> dict[str, Any]:
    """Means and every row, JSON-ready."""
    return {"means": means(rows), "rows": [asdict(row) for row in rows]}


def as_markdown(rows: Sequence[ClickScore]) -> str:
    """A table of every structure's Dice at the counted clicks, the mean last."""
    summary = means(rows)
    counts = summary["clicks"]
    lines = [
        "| case | structure | voxels | " + " | ".join(f"{n} click{'s' * (n > 1)}" for n in counts) + " |",
        "|---|---|---:|" + "---:|" * len(counts),
    ]
    for row in rows:
        values = " | ".join(f"{row.dice[count - 1]:.2f}" for count in counts)
        lines.append(f"| {row.case.split('_')[0]} | {row.name.replace('_', ' ')} | {row.voxels} | {values} |")
    lines.append("| | **mean** | | " + " | ".join(f"**{value:.2f}**" for value in summary["dice"]) + " |")
    baselines = {"baseline": "Grow from seeds, own clicks", "baseline_same": "Grow from seeds, same clicks"}
    for field, title in baselines.items():
        if field in summary:
            lines.append(f"| | {title} | | " + " | ".join(f"{value:.2f}" for value in summary[field]) + " |")
    return "\n".join(lines) + "\n"
