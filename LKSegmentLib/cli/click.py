"""`lksegment click`: one structure, pointed at; as a segment, a label volume, a Slicer scene or a picture."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LKSegmentLib.cli.arguments import add_click_model, add_clicks, add_device, add_image, clicked_points
from LKSegmentLib.cli.command import Command
from LKSegmentLib.cli.outputs import LABEL_SUFFIXES, SEGMENTATION_SUFFIX, output_file, refuse_overwriting
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.errors import InputError

if TYPE_CHECKING:
    from LKSegmentLib.cli.click_files import Targets


def configure(parser: argparse.ArgumentParser) -> None:
    add_image(parser)
    add_clicks(parser)
    add_click_model(parser)
    add_device(parser)
    parser.add_argument("--name", default="structure", help="name of the segment (default: structure)")
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="segmentation: .seg.nrrd for Slicer, or a label volume .nii.gz, .nrrd, .mha"
    )
    parser.add_argument("--scene", metavar="FILE.mrb", help="Slicer scene: image, segment, clicks, attention overlay")
    parser.add_argument("--png", metavar="FILE.png", help="picture of Slicer's four views")
    parser.add_argument("--maps", action="store_true", help="also write the attention maps, as .nrrd beside the output")


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib.cli.click_files import ClickedStructure, write_click
    from LKSegmentLib.cli.worker_jobs import finished
    from LKSegmentLib.engine.client import EngineClient
    from LKSegmentLib.volumes import read_volume

    targets = _targets(arguments)
    refuse_overwriting(arguments.image, *targets.paths)
    if not arguments.clicks:
        raise InputError("Say where the structure is: --point R,A,S, or --box, --scribble or --lasso.")
    volume = read_volume(arguments.image, arguments.frame)
    points = clicked_points(arguments, volume.grid)
    targets.check(volume)
    begun = time.monotonic()
    with EngineClient() as client:
        handle = client.open_image(volume)
        job = client.click(handle, arguments.model, arguments.device, points, with_maps=targets.want_maps)
        result = finished(client, job, screen, "Click")
    seconds = time.monotonic() - begun
    image_name = Path(arguments.image).name.split(".")[0]
    structure = ClickedStructure(volume, image_name, arguments.name, result.box, points, result.maps)
    with screen.progress("Writing"):
        written = write_click(structure, targets)
    if structure.voxels == 0:
        screen.note("The mask is empty: the model found nothing there. Try another point inside the structure.")
    screen.say(f"{structure.name}: {structure.voxels} voxels, {structure.millilitres:.1f} ml, in {seconds:.1f} s")
    for path in written:
        screen.say(f"  {path}")
    return {
        "name": structure.name,
        "voxels": structure.voxels,
        "millilitres": structure.millilitres,
        "points": [{"ras": point.ras, "positive": point.positive} for point in points],
        "model": arguments.model,
        "device": arguments.device,
        "seconds": seconds,
        "files": written,
    }


def _targets(arguments: argparse.Namespace) -> Targets:
    from LKSegmentLib.cli.click_files import Targets

    if not (arguments.out or arguments.scene or arguments.png):
        raise InputError("Say where the result goes: -o FILE, --scene FILE.mrb or --png FILE.png.")
    kinds = (SEGMENTATION_SUFFIX, *LABEL_SUFFIXES)
    return Targets(
        segmentation=output_file(arguments.out, kinds, "segmentation") if arguments.out else None,
        scene=output_file(arguments.scene, (".mrb",), "scene") if arguments.scene else None,
        picture=output_file(arguments.png, (".png",), "picture") if arguments.png else None,
        maps=arguments.maps,
    )


COMMAND = Command(
    name="click",
    summary="Segment one structure from clicks, boxes, scribbles or lassos.",
    example=(
        "  lksegment click ct.nii.gz --point 62,-20,85 --negative 40,-60,85 -o liver.seg.nrrd\n"
        "  lksegment click ct.nii.gz --ijk --point 120,88,41 -o liver.nii.gz --scene liver.mrb --png liver.png\n"
        '  lksegment click ct.nii.gz --box "40,-60,50 110,20,120" --off "30,-60,85 30,-20,85" -o liver.nii.gz'
    ),
    configure=configure,
    run=run,
)
