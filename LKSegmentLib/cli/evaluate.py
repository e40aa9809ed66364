"""`lksegment evaluate`: how good a click model is, click after click, and what the maps of a model are worth."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LKSegmentLib.cli import evaluate_maps
from LKSegmentLib.cli.arguments import add_click_model, add_device
from LKSegmentLib.cli.command import Command, Parser, add_json, example
from LKSegmentLib.cli.outputs import output_file, whole_files
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from LKSegmentLib.evaluation.click_scores import ClickMethod, Structure
    from LKSegmentLib.inference.clicks import ClickModelSession
    from LKSegmentLib.packages.manifest import Manifest
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
    clicks.add_argument("--structures", metavar="NAME,NAME", help="only these, by name (default: all)")
    clicks.add_argument("--case", metavar="FOLDER", help="only this case (default: all)")
    clicks.add_argument(
        "--whole", action="store_true", help="click on the whole image, as a person does, not on a cube around each"
    )
    clicks.add_argument("--store", action="store_true", help="write the mean scores into the model's package")
    clicks.add_argument("--markdown", metavar="FILE.md", help="write the table there")
    clicks.add_argument("--picture", metavar="FILE.png", help="draw the last masks of one case there (with --whole)")
    add_json(clicks)
    evaluate_maps.configure(kinds)


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    return evaluate_maps.run(arguments, screen) if arguments.what == "maps" else _run_clicks(arguments, screen)


def _run_clicks(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib import packages
    from LKSegmentLib.evaluation import click_report
    from LKSegmentLib.evaluation.click_scores import real_structures
    from LKSegmentLib.inference.devices import resolve_device

    if arguments.clicks < 1:
        raise InputError(f"At least one click is needed, not {arguments.clicks}.")
    table = output_file(arguments.markdown, (".md",), "table") if arguments.markdown else None
    picture = output_file(arguments.picture, (".png",), "picture") if arguments.picture else None
    if picture is not None and not arguments.whole:
        raise InputError("A picture shows masks on a whole image: add --whole.")
    folder = Path(arguments.data).expanduser()
    package = packages.load(arguments.model)
    method = _Method(package, str(resolve_device(arguments.device)))
    baseline: ClickMethod | None = None
    if arguments.grow_from_seeds:
        from LKSegmentLib.scene.grow_from_seeds import grow_from_seeds

        baseline = grow_from_seeds
    with screen.progress("Evaluating") as progress:
        progress("reading", 0.0)
        names = _names(folder)
        structures = _chosen(real_structures(folder), names, arguments.structures, arguments.case)
        if not arguments.whole:
            structures = [structure.cropped() for structure in structures]
        if not structures:
            raise InputError(f"There are no such labelled structures in {folder}.")
        if picture is not None and len({structure.case for structure in structures}) > 1:
            raise InputError("A picture shows one case: name it with --case.")
        last: dict[str, NDArray[np.bool_]] = {}
        rows = click_report.score(
            structures,
            method,
            baseline,
            names,
            arguments.clicks,
            progress,
            lambda structure, name, mask: last.update({name: mask}),
        )
    markdown = click_report.as_markdown(rows)
    screen.say(markdown)
    if table is not None:
        with whole_files(table) as (draft,):
            draft.write_text(_page(arguments, package.manifest, markdown), encoding="utf-8")
        screen.say(f"The table is in {table}.")
    if picture is not None:
        from LKSegmentLib.cli.structures_picture import write_structures_picture

        with whole_files(picture) as (draft,):
            write_structures_picture(structures[0].volume, last, draft)
        screen.say(f"The picture is in {picture}.")
    if arguments.store:
        where = "whole image" if arguments.whole else "cube around each structure, 64³ voxels"
        score = {"measured": "mean Dice after simulated clicks", "on": where, **click_report.means(rows)}
        score["cases"] = sorted({row.case for row in rows})
        screen.say(f"The scores are in {packages.store_scores(package.source, [score])}.")
    return click_report.as_json(rows)


def _chosen(
    structures: Iterable[Structure], names: Mapping[tuple[str, int], str], wanted: str | None, case: str | None
) -> list[Structure]:
    """The structures of this case with these names, in the order of the names.

    Raises InputError for a name that no structure has.
    """
    found = [structure for structure in structures if case is None or structure.case == case]
    if wanted is None:
        return found
    chosen = []
    for name in (part.strip() for part in wanted.split(",")):
        of_this_name = [entry for entry in found if names.get((entry.case, entry.value)) == name]
        if not of_this_name:
            known = sorted({names.get((entry.case, entry.value), str(entry.value)) for entry in found})
            raise InputError(f"There is no structure {name!r}; there are: {', '.join(known)}.")
        chosen += of_this_name
    return chosen


def _page(arguments: argparse.Namespace, manifest: Manifest, table: str) -> str:
    """The table under a title, with the command that made it."""
    given = [f"--case {arguments.case}"] if arguments.case else []
    given += [f"--structures {arguments.structures}"] if arguments.structures else []
    given += ["--whole"] if arguments.whole else []
    given += ["--grow-from-seeds"] if arguments.grow_from_seeds else []
    where = "on the whole image" if arguments.whole else "on a cube around each structure, 64³ voxels"
    weights = manifest.files["weights.safetensors"].sha256[:12]
    return (
        f"# Dice after each click: {manifest.name} {where}\n\n"
        f"Weights {weights}… . {manifest.trained_on}\n\n"
        "The first click is the deepest voxel of the structure, each further one the middle of the largest error. "
        "References made by another model are for comparison, not ground truth. Written by\n\n"
        f"    lksegment evaluate clicks --data FOLDER {' '.join(given)} --clicks {arguments.clicks} "
        f"--markdown FILE.md\n\n"
        f"{table}"
    )


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
    summary="Measure a model on labelled images, or what its maps are worth.",
    example=f"{_EXAMPLE}\n{evaluate_maps.EXAMPLE}",
    configure=configure,
    run=run,
)
