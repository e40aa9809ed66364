"""`lksegment evaluate clicks`: how good a click model is, click after click, on labelled images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LKSegmentLib.cli.arguments import add_click_model, add_device
from LKSegmentLib.cli.command import Command, Parser, add_json, example
from LKSegmentLib.cli.outputs import output_file, whole_files
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from LKSegmentLib.evaluation.click_scores import ClickMethod
    from LKSegmentLib.inference.clicks import ClickModelSession
    from LKSegmentLib.prompts import Point
    from LKSegmentLib.volumes import Volume

_EXAMPLE = (
    "  lksegment evaluate clicks --data ../shared/data --clicks 5\n"
    "  lksegment evaluate clicks --data ../shared/data --grow-from-seeds --markdown table.md"
)


def configure(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True, parser_class=Parser)
    summary = "Click through the structures of labelled images; each click corrects the largest error."
    clicks = kinds.add_parser("clicks", help=summary, description=summary, **example(_EXAMPLE))
    clicks.add_argument("--data", required=True, metavar="FOLDER", help="folder with the labelled cases")
    add_click_model(clicks)
    add_device(clicks)
    clicks.add_argument("--clicks", type=int, default=10, help="clicks on each structure (default: 10)")
    clicks.add_argument(
        "--grow-from-seeds", action="store_true", help="also score Slicer's Grow from seeds (needs slicer-core)"
    )
    clicks.add_argument("--markdown", metavar="FILE.md", help="write the table there")
    add_json(clicks)


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib import packages
    from LKSegmentLib.evaluation import click_report
    from LKSegmentLib.evaluation.click_scores import real_structures
    from LKSegmentLib.inference.devices import resolve_device

    if arguments.clicks < 1:
        raise InputError(f"At least one click is needed, not {arguments.clicks}.")
    table = output_file(arguments.markdown, (".md",), "table") if arguments.markdown else None
    folder = Path(arguments.data).expanduser()
    method = _Method(packages.load(arguments.model), str(resolve_device(arguments.device)))
    baseline: ClickMethod | None = None
    if arguments.grow_from_seeds:
        from LKSegmentLib.scene.grow_from_seeds import grow_from_seeds

        baseline = grow_from_seeds
    with screen.progress("Evaluating") as progress:
        progress("reading", 0.0)
        structures = [structure.cropped() for structure in real_structures(folder)]
        if not structures:
            raise InputError(f"There are no labelled cases in {folder}.")
        rows = click_report.score(structures, method, baseline, _names(folder), arguments.clicks, progress)
    markdown = click_report.as_markdown(rows)
    screen.say(markdown)
    if table is not None:
        with whole_files(table) as (draft,):
            draft.write_text(markdown, encoding="utf-8")
        screen.say(f"The table is in {table}.")
    return click_report.as_json(rows)


class _Method:
    """A click model as the evaluation calls it: the clicks so far on a volume give a mask (k, j, i)."""

    def __init__(self, package: Any, device: str) -> None:
        self._package = package
        self._device = device
        self._session: ClickModelSession | None = None

    def __call__(self, volume: Volume, points: Sequence[Point]) -> NDArray[np.bool_]:
        from LKSegmentLib.inference.clicks import ClickModelSession

        if self._session is None or self._session.volume is not volume:
            self._session = ClickModelSession(volume, self._package, self._device)
        return self._session.mask_for(points).full(volume.grid.shape)


def _names(folder: Path) -> dict[tuple[str, int], str]:
    """(case, label value) to name, from the cases' `label_names.json`."""
    names = {}
    for path in folder.glob("*/label_names.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        names.update({(path.parent.name, int(value)): str(name) for value, name in found.items()})
    return names


COMMAND = Command(
    name="evaluate",
    summary="Measure a model on labelled images.",
    example=_EXAMPLE,
    configure=configure,
    run=run,
)
