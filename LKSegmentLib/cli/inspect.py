"""`lksegment inspect`: what a click model's gates did on an image, as volumes with a passport each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from LKSegmentLib.cli.arguments import add_click_model, add_clicks, add_device, add_image, clicked_points
from LKSegmentLib.cli.command import Command
from LKSegmentLib.cli.outputs import output_folder
from LKSegmentLib.cli.screen import Screen, table


def configure(parser: argparse.ArgumentParser) -> None:
    add_image(parser)
    add_clicks(parser)
    add_click_model(parser)
    add_device(parser)
    parser.add_argument(
        "--layer", action="append", metavar="NAME", help="only the map of this name; may be repeated (default: all)"
    )
    parser.add_argument("-o", "--out", required=True, metavar="FOLDER", help="where the mask and the maps go")


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib.cli.click_files import Targets, write_maps
    from LKSegmentLib.scripting import inspect
    from LKSegmentLib.volumes import read_volume

    folder = output_folder(Path(arguments.out).expanduser().absolute(), "maps")
    volume = read_volume(arguments.image, arguments.frame)
    points = clicked_points(arguments, volume.grid)
    targets = Targets(segmentation=folder / "mask.nrrd", maps=True)
    targets.check(volume)
    clicks = [(point.ras, point.positive) for point in points]
    with screen.progress("Inspecting"):
        mask, maps = inspect(volume, arguments.model, arguments.layer, clicks, arguments.device)
        files = write_maps(mask, maps, folder / "mask.nrrd")
    rows = []
    for found in maps:
        low, high = float(found.volume.array.min()), float(found.volume.array.max())
        spacing = " x ".join(f"{length:.3g}" for length in found.volume.spacing)
        rows.append([found.name, f"{low:.3f} to {high:.3f}", spacing, str(found.passport.get("operator", ""))])
    screen.say(table(rows, ["map", "values", "spacing mm", "what it is"]))
    for path in files:
        screen.say(f"  {path}")
    return {"maps": [{"name": found.name, "passport": found.passport} for found in maps], "files": files}


COMMAND = Command(
    name="inspect",
    summary="Write the attention maps of a click model as volumes.",
    example="  lksegment inspect ct.nii.gz --point 62,-20,85 -o maps",
    configure=configure,
    run=run,
)
