"""`lksegment demo`: the main job from an image to a Slicer scene, told step by step."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LKSegmentLib.cli.arguments import add_device, clicked_points, triple
from LKSegmentLib.cli.command import Command
from LKSegmentLib.cli.outputs import coming_folder, output_folder, require_space, whole_files
from LKSegmentLib.cli.screen import Screen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from LKSegmentLib.engine.results import ClickResult
    from LKSegmentLib.prompts import Point
    from LKSegmentLib.volumes import Volume

_MODEL = "lk_click"
_ORGAN = "liver"
# On the synthetic abdomen the truth is known, and mistakes can be corrected, until a person would be content.
_CLICKS = 4
_CONTENT = 0.9


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", metavar="PATH", help="an image of yours (default: a synthetic abdomen)")
    parser.add_argument("--frame", type=int, metavar="N", help="which frame (from 0) of a 4-D image to use")
    parser.add_argument(
        "--point", type=triple, metavar="R,A,S", help="where to click, RAS mm (default: a place found by itself)"
    )
    parser.add_argument("--out", default="lksegment-demo", metavar="FOLDER", help="where the results go")
    add_device(parser)


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib.cli.click_files import ClickedStructure, write_click
    from LKSegmentLib.engine.client import EngineClient
    from LKSegmentLib.volumes import write_volume

    folder = coming_folder(Path(arguments.out).expanduser().absolute(), "results")
    volume, truth = _image(arguments, screen)
    require_space(folder, 3 * volume.array.nbytes)
    first = _first_point(arguments, volume, truth, screen)
    image_file = folder / "synthetic_abdomen.nrrd" if truth is not None else None
    targets = _targets(folder, volume, screen)
    with EngineClient() as client:
        points, result, scores = _clicked(client, volume, truth, first, arguments.device, screen)
    name = "structure" if truth is None else _ORGAN
    image_name = "synthetic abdomen" if truth is not None else Path(arguments.image).name.split(".")[0]
    structure = ClickedStructure(volume, image_name, name, result.box, points, result.maps)
    if structure.voxels == 0:
        screen.note("The mask is empty: the model found nothing at this point. Try another one with --point R,A,S.")
    screen.say("Writing the scene as Slicer keeps it: image, segment, clicks, attention overlay.")
    output_folder(folder, "results")
    with screen.progress("Writing"):
        files = write_click(structure, targets)
        if image_file is not None:
            with whole_files(image_file) as (draft,):
                write_volume(volume, draft)
            files.append(image_file)
    screen.say(f"\nDone. {name}: {structure.voxels} voxels, {structure.millilitres:.0f} ml.")
    for path in files:
        screen.say(f"  {path}  ({_MEANING.get(path.name, 'the image')})")
    return {
        "name": name,
        "voxels": structure.voxels,
        "millilitres": structure.millilitres,
        "points": [{"ras": point.ras, "positive": point.positive} for point in points],
        "dice": scores or None,
        "files": files,
    }


_MEANING = {
    "scene.mrb": "open this in 3D Slicer",
    "segmentation.seg.nrrd": "the segment alone, for the Segment Editor",
    "views.png": "Slicer's four views",
    "synthetic_abdomen.nrrd": "the image",
}


def _image(arguments: argparse.Namespace, screen: Screen) -> tuple[Volume, NDArray[np.bool_] | None]:
    """The image and, of the synthetic abdomen, the true mask of the organ to be segmented."""
    if arguments.image:
        from LKSegmentLib.volumes import read_volume

        screen.say(f"Reading {arguments.image}.")
        volume, truth = read_volume(arguments.image, arguments.frame), None
    else:
        from LKSegmentLib.training.abdomen import LABELS, make_abdomen

        screen.say("Making a synthetic abdomen: organs, texture, noise, oblique axes. No patient was involved.")
        with screen.progress("Synthetic abdomen"):
            abdomen = make_abdomen()
        value = next(number for number, organ in LABELS.items() if organ == _ORGAN)
        volume, truth = abdomen.volume, abdomen.labels.array == value
    k, j, i = volume.grid.shape
    spacing = " x ".join(f"{length:.3g}" for length in volume.spacing)
    screen.say(f"  {i} x {j} x {k} voxels of {spacing} mm")
    return volume, truth


def _first_point(
    arguments: argparse.Namespace, volume: Volume, truth: NDArray[np.bool_] | None, screen: Screen
) -> Point:
    from LKSegmentLib.cli.automatic_point import automatic_point
    from LKSegmentLib.prompts.simulated import first_click

    place = arguments.point
    if place is None and truth is not None:
        place = tuple(round(float(value), 1) for value in volume.grid.ras_of(first_click(truth)[::-1]))
        how = f"the middle of the {_ORGAN}"
    elif place is None:
        place = automatic_point(volume)
        how = "found by itself: deep inside something even and bright near the middle; --point chooses another"
    else:
        how = "as you said"
    arguments.clicks, arguments.ijk = [("point", place)], False
    screen.say(f"First click at RAS {place[0]:g}, {place[1]:g}, {place[2]:g} mm ({how}).")
    return clicked_points(arguments, volume.grid)[0]


def _targets(folder: Path, volume: Volume, screen: Screen) -> Any:
    """Everything, but no picture where none can be drawn: the rest is worth having without it."""
    from LKSegmentLib.cli.click_files import Targets
    from LKSegmentLib.scene.views import rendering_problem

    picture: Path | None = folder / "views.png"
    problem = rendering_problem()
    if problem is not None:
        screen.note(problem)
        picture = None
    targets = Targets(folder / "segmentation.seg.nrrd", folder / "scene.mrb", picture)
    targets.check(volume)
    return targets


def _clicked(
    client: Any, volume: Volume, truth: NDArray[np.bool_] | None, first: Point, device: str, screen: Screen
) -> tuple[list[Point], ClickResult, list[float]]:
    """Click, and on the synthetic abdomen correct what is wrong, as a person would."""
    from LKSegmentLib.cli.worker_jobs import finished
    from LKSegmentLib.evaluation.metrics import dice
    from LKSegmentLib.prompts import Point
    from LKSegmentLib.prompts.simulated import correcting_click

    screen.say("Starting the worker process; it loads torch and the model, so that Slicer never has to.")
    handle = client.open_image(volume)
    points = [first]
    scores: list[float] = []
    while True:
        begun = time.monotonic()
        job = client.click(handle, _MODEL, device, points, with_maps=True)
        result = finished(client, job, screen, f"Click {len(points)}")
        seconds = time.monotonic() - begun
        mask = result.box.full(volume.grid.shape)
        told = f"  click {len(points)}: {int(mask.sum())} voxels in {seconds:.1f} s"
        if truth is None:
            screen.say(told)
            return points, result, scores
        scores.append(round(dice(mask, truth), 3))
        screen.say(f"{told}, Dice {scores[-1]:.2f} against the known {_ORGAN}")
        content = scores[-1] >= _CONTENT or len(points) == _CLICKS
        correction = None if content else correcting_click(truth, mask)
        if correction is None:
            return points, result, scores
        r, a, s = (round(float(value), 1) for value in volume.grid.ras_of(correction[0][::-1]))
        points.append(Point((r, a, s), correction[1]))


COMMAND = Command(
    name="demo",
    summary="Run the main job on a synthetic abdomen or your image, and leave a scene for Slicer.",
    example="  lksegment demo\n  lksegment demo --image ct.nii.gz --point 62,-20,85 --out my_demo",
    configure=configure,
    run=run,
)
