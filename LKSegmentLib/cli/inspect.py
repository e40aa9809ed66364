"""`lksegment inspect`: what a model's gates did on an image, as volumes with a passport each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LKSegmentLib.cli.arguments import add_clicks, add_device, add_image, clicked_points, triple
from LKSegmentLib.cli.command import Command
from LKSegmentLib.cli.outputs import coming_folder, output_folder
from LKSegmentLib.cli.screen import Screen, table
from LKSegmentLib.errors import InputError

if TYPE_CHECKING:
    from LKSegmentLib.engine.results import Map


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
        help='a map, or "NAME #5" for one channel of it; may be repeated. A name that does not exist lists those that '
        "do (default: a default set, of a click model all)",
    )  # fmt: skip
    parser.add_argument(
        "--reach", type=triple, metavar="R,A,S",
        help="also the reach of the answer at this place, RAS mm: from where in the image it comes",
    )  # fmt: skip
    parser.add_argument("-o", "--out", required=True, metavar="FOLDER", help="where the mask and the maps go")


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib.cli.click_files import Targets, write_maps
    from LKSegmentLib.packages import read_manifest
    from LKSegmentLib.packages.store import locate
    from LKSegmentLib.scripting import inspect
    from LKSegmentLib.volumes import read_volume

    folder = coming_folder(Path(arguments.out).expanduser().absolute(), "maps")
    by_clicks = read_manifest(locate(arguments.model)).kind == "click"
    if by_clicks and not arguments.clicks:
        raise InputError("The maps of a click model depend on the clicks: give --point R,A,S.")
    if by_clicks:
        volume = read_volume(arguments.image, arguments.frame)
    else:
        volume = read_volume(arguments.image, arguments.frame, as_channels=arguments.frame is None)
    clicks = [(point.ras, point.positive) for point in clicked_points(arguments, volume.grid)]
    result = folder / ("mask.nrrd" if by_clicks else "labels.nrrd")
    Targets(segmentation=result, maps=True).check(volume)
    if arguments.reach:
        from LKSegmentLib.inspection.reach import check_inside

        check_inside(volume.grid, arguments.reach)
    with screen.progress("Inspecting") as progress:
        mask, maps = inspect(
            volume, arguments.model, arguments.maps, clicks, arguments.device, progress, announce=screen.say
        )
        if arguments.reach:
            maps = [*maps, _reach(arguments, volume, clicks, screen)]
        output_folder(folder, "maps")
        files = write_maps(mask, maps, result)
    rows = []
    for found in maps:
        low, high = float(found.volume.array.min()), float(found.volume.array.max())
        spacing = " x ".join(f"{length:.3g}" for length in found.volume.spacing)
        rows.append([found.name, f"{low:.3g} to {high:.3g}", spacing, str(found.passport.get("operator", ""))])
    screen.say(table(rows, ["map", "values", "spacing mm", "what it is"]))
    for path in files:
        screen.say(f"  {path}")
    return {"maps": [{"name": found.name, "passport": found.passport} for found in maps], "files": files}


def _reach(arguments: argparse.Namespace, volume: Any, clicks: list[Any], screen: Screen) -> Map:
    from LKSegmentLib.engine.results import Map
    from LKSegmentLib.scripting import reach

    found = reach(volume, arguments.model, arguments.reach, clicks, arguments.device)
    screen.say(found.sentence)
    return Map("reach", found.volume, found.passport)


COMMAND = Command(
    name="inspect",
    summary="Write what a model's gates and attention did as volumes.",
    example=(
        "  lksegment inspect ct.nii.gz --point 62,-20,85 -o maps\n"
        '  lksegment inspect ct.nii.gz --model my_organs --maps "fusion gate, decoder 1/1" --reach 62,-20,85 -o maps'
    ),
    configure=configure,
    run=run,
)
