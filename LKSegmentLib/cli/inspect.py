"""`lksegment inspect`: what a model's gates did on an image, as volumes, tables and a report."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LKSegmentLib.cli.arguments import add_clicks, add_device, add_image, clicked_points, triple
from LKSegmentLib.cli.command import Command
from LKSegmentLib.cli.outputs import coming_folder, output_folder
from LKSegmentLib.cli.screen import Screen, table
from LKSegmentLib.errors import InputError

if TYPE_CHECKING:
    from LKSegmentLib.cli.inspect_files import Inspected
    from LKSegmentLib.prompts import Point
    from LKSegmentLib.volumes import Volume

_IMAGE = 0  # a service of our own holds one image


def configure(parser: argparse.ArgumentParser) -> None:
    add_image(parser)
    add_clicks(parser)
    parser.add_argument(
        "--model", default="lk_click", metavar="NAME",
        help="installed model, or path of a model package; a click model needs --point (default: lk_click)",
    )  # fmt: skip
    add_device(parser)
    parser.add_argument(
        "--maps", "--layer", action="append", dest="maps", metavar="NAME",
        help='a map or table, or "NAME #5" for one channel of it; may be repeated. A name that does not exist lists '
        "those that do (default: a default set, of a click model all)",
    )  # fmt: skip
    parser.add_argument(
        "--reach", type=triple, metavar="R,A,S",
        help="also the reach of the answer at this place, RAS mm: from where in the image it comes",
    )  # fmt: skip
    parser.add_argument(
        "--reach-around", type=float, metavar="MM",
        help="of --reach the mean over up to 8 voxels within so many mm of the place, instead of the one voxel",
    )  # fmt: skip
    parser.add_argument(
        "--probe", type=triple, action="append", metavar="R,A,S",
        help="also the value of every map at this place, RAS mm; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--click-changes", action="store_true", help="also what each click changed, and maps of what the last one did"
    )
    parser.add_argument(
        "--report", action=argparse.BooleanOptionalAction, default=True,
        help="a picture of each map, and one page with all of it that opens without a network (default: yes)",
    )  # fmt: skip
    parser.add_argument("-o", "--out", required=True, metavar="FOLDER", help="where all of it goes")


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib.cli.click_files import Targets
    from LKSegmentLib.cli.inspect_files import write_inspection
    from LKSegmentLib.engine.failures import plain_errors
    from LKSegmentLib.packages import read_manifest
    from LKSegmentLib.packages.store import locate
    from LKSegmentLib.volumes import read_volume

    folder = coming_folder(Path(arguments.out).expanduser().absolute(), "maps")
    manifest = read_manifest(locate(arguments.model))
    by_clicks = manifest.kind == "click"
    if by_clicks and not arguments.clicks:
        raise InputError("The maps of a click model depend on the clicks: give --point R,A,S.")
    if arguments.click_changes and not by_clicks:
        raise InputError(f"The model {manifest.name!r} takes no clicks: leave --click-changes out.")
    if arguments.reach_around is not None and not arguments.reach:
        raise InputError("--reach-around says over which voxels --reach is averaged: give --reach R,A,S too.")
    if arguments.reach_around is not None and not 0 < arguments.reach_around < math.inf:
        raise InputError(f"--reach-around is a distance above 0 mm, not {arguments.reach_around:g}.")
    volume = read_volume(arguments.image, arguments.frame, as_channels=not by_clicks and arguments.frame is None)
    points = clicked_points(arguments, volume.grid)
    result = folder / ("mask.nrrd" if by_clicks else "labels.nrrd")
    Targets(segmentation=result, maps=True).check(volume)
    for place in (*([arguments.reach] if arguments.reach else ()), *(arguments.probe or ())):
        from LKSegmentLib.inspection.reach import check_inside

        check_inside(volume.grid, place)
    with plain_errors(arguments.device), screen.progress("Inspecting") as progress:
        found = _inspected(arguments, volume, points, screen, progress)
        progress("writing", 0.0)
        output_folder(folder, "maps")
        files = write_inspection(found, result, arguments.report, screen, progress)
    rows = []
    for shown in found.maps:
        low, high = float(shown.volume.array.min()), float(shown.volume.array.max())
        spacing = " x ".join(f"{length:.3g}" for length in shown.volume.spacing)
        rows.append([shown.name, f"{low:.3g} to {high:.3g}", spacing, str(shown.passport.get("operator", ""))])
    if rows:
        screen.say(table(rows, ["map", "values", "spacing mm", "what it is"]))
    for sentence in found.sentences:
        screen.say(sentence)
    for path in files:
        screen.say(f"  {path}")
    return {
        "maps": [{"name": shown.name, "passport": shown.passport} for shown in found.maps],
        "tables": [numbers.as_json() for numbers in found.tables],
        "files": files,
    }


def _inspected(
    arguments: argparse.Namespace, volume: Volume, points: list[Point], screen: Screen, progress: Any
) -> Inspected:
    """Everything that was asked for, computed. Raises InputError, RunError."""
    import numpy as np

    from LKSegmentLib.cli.inspect_files import Inspected
    from LKSegmentLib.engine.results import SegmentResult
    from LKSegmentLib.engine.service import Service
    from LKSegmentLib.inspection.by_segment import means_by_segment
    from LKSegmentLib.inspection.listing import CHANGES, MEANS
    from LKSegmentLib.inspection.probe import has_place, values_at
    from LKSegmentLib.prompts import without_last

    service = Service()
    service.open_image(_IMAGE, volume.array, volume.ijk_to_ras)
    asked = (_IMAGE, arguments.model, arguments.device, points)
    if _reach_alone(arguments, service.exposed(arguments.model, progress)):
        answer: Any = service.segment(_IMAGE, arguments.model, arguments.device, progress, lambda: False)
        maps, tables = [], []
    else:
        found = service.inspect(*asked, arguments.maps, progress, lambda: False, screen.say)
        answer, maps, tables = found.answer, list(found.maps), list(found.tables)
    sentences = []
    if isinstance(answer, SegmentResult):
        labels, names = answer.labels, answer.names
    else:
        box = None if answer is None else answer.box
        mask = np.zeros(volume.grid.shape, np.uint8) if box is None else box.full(volume.grid.shape).astype(np.uint8)
        labels, names = volume.with_array(mask), ["clicked structure"]
    if arguments.click_changes:
        if CHANGES not in [numbers.name for numbers in tables]:
            tables += service.inspect(*asked, [CHANGES], progress, lambda: False).tables
        if without_last(points):
            maps += _differences(arguments, volume, points)
    if arguments.reach:
        reach = service.reach(*asked, arguments.reach, None, progress, lambda: False, arguments.reach_around)
        maps.append(reach.map)
        sentences.append(reach.sentence)
    tables += [values_at(maps, place) for place in arguments.probe or ()]
    told = any(numbers.name == MEANS for numbers in tables)
    if labels.array.any() and any(has_place(shown) for shown in maps) and not told:
        tables.append(means_by_segment(maps, labels, _present(labels, names)))
    answered = answer is not None
    return Inspected(
        arguments.image, arguments.model, volume, labels, names, points, maps, tables, sentences, answered
    )


def _reach_alone(arguments: argparse.Namespace, shown: dict[str, Any]) -> bool:
    """Whether the reach is all that can be shown of what was asked: no map by name, and a network that has none."""
    nothing_recorded = all(entry["group"] != "recorded" for entry in shown["entries"])
    return bool(arguments.reach) and arguments.maps is None and shown["kind"] == "volume" and nothing_recorded


def _present(labels: Volume, names: list[str]) -> dict[int, str]:
    """The segments that were found; those that were not have no mean."""
    import numpy as np

    counts = np.bincount(labels.array.ravel(), minlength=len(names) + 1)
    return {value: name for value, name in enumerate(names, start=1) if counts[value]}


def _differences(arguments: argparse.Namespace, volume: Volume, points: list[Point]) -> list[Any]:
    from LKSegmentLib.inference.clicks import ClickModelSession
    from LKSegmentLib.inference.devices import resolve_device
    from LKSegmentLib.inspection.click_changes import difference_maps
    from LKSegmentLib.packages import load

    session = ClickModelSession(volume, load(arguments.model), resolve_device(arguments.device))
    return difference_maps(session, points)


COMMAND = Command(
    name="inspect",
    summary="Write what a model's gates and attention did as volumes, tables and a report.",
    example=(
        "  lksegment inspect ct.nii.gz --point 62,-20,85 --click-changes -o maps\n"
        '  lksegment inspect ct.nii.gz --model my_organs --maps "fusion gate, decoder 1/1" --reach 62,-20,85 -o maps'
    ),
    configure=configure,
    run=run,
)
