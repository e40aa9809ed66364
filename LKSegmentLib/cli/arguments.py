"""Arguments that several commands share, and their reading."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from LKSegmentLib.prompts import Point
    from LKSegmentLib.volumes import Grid

Triple = tuple[float, float, float]

_COORDINATE_OPTIONS = ("--point", "--negative", "--reach", "--probe", "--box", "--scribble", "--off", "--lasso")


def joined(words: Sequence[str]) -> list[str]:
    """Glue coordinates to their option: argparse takes `-40,12,5` in `--point -40,12,5` for an option itself."""
    result: list[str] = []
    for word in words:
        if result and result[-1] in _COORDINATE_OPTIONS and word.startswith("-") and "," in word:
            result[-1] += f"={word}"
        else:
            result.append(word)
    return result


def triple(text: str) -> Triple:
    """`R,A,S` or `I,J,K`: three finite numbers with commas between."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or not all(math.isfinite(value) for value in values):
        raise argparse.ArgumentTypeError(f"'{text}' is not three numbers with commas between, such as -42,18,96.5")
    return values[0], values[1], values[2]


def triples(text: str) -> list[Triple]:
    """Several `R,A,S`, with blanks between."""
    return [triple(part) for part in text.split()]


class _Click(argparse.Action):
    """Collects clicks and strokes in one list: their order on the command line is their order in time."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        clicks = [*(getattr(namespace, self.dest) or []), ((option or "").lstrip("-"), values)]
        setattr(namespace, self.dest, clicks)


def add_clicks(parser: argparse.ArgumentParser) -> None:
    """`--point`, `--negative`, strokes and `--ijk`; the namespace gets `clicks`: [(option, value), ...] in order."""
    parser.add_argument(
        "--point", action=_Click, dest="clicks", type=triple, metavar="R,A,S",
        help="a click inside the structure, RAS mm; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--negative", action=_Click, dest="clicks", type=triple, metavar="R,A,S",
        help="a click on something that does not belong to it; may be repeated",
    )  # fmt: skip
    line = "R,A,S R,A,S ..."
    for option, words in (
        ("--box", "two opposite corners of a box around the structure, in quotes"),
        ("--scribble", "a line drawn over the structure, in quotes"),
        ("--off", "a line drawn over what does not belong to it, in quotes"),
        ("--lasso", "a closed line around the structure on one slice, in quotes"),
    ):
        parser.add_argument(option, action=_Click, dest="clicks", type=triples, metavar=f'"{line}"', help=words)
    parser.add_argument(
        "--ijk", action="store_true", help="the clicks are voxel indices I,J,K (from 0) and not RAS mm"
    )


def add_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="image file, or folder with one DICOM series")
    parser.add_argument("--frame", type=int, metavar="N", help="which frame (from 0) of a 4-D image to use")


def add_click_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="lk_click", metavar="NAME",
        help="installed click model, or path of a model package (default: lk_click)",
    )  # fmt: skip


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", metavar="NAME",
        help="auto, cpu, cuda, cuda:1 or mps; a device that is not there is refused, never exchanged (default: auto)",
    )  # fmt: skip


def clicked_points(arguments: argparse.Namespace, grid: Grid) -> list[Point]:
    """The clicks and strokes of the command line as points, in order. Raises InputError for one outside the image."""
    from LKSegmentLib.errors import InputError
    from LKSegmentLib.prompts import Point, strokes

    def in_mm(place: Triple) -> Triple:
        r, a, s = (float(value) for value in (grid.ras_of(place) if arguments.ijk else place))
        return r, a, s

    points: list[Point] = []
    for option, value in arguments.clicks or ():
        if option in ("point", "negative"):
            place = in_mm(value)
            if not grid.contains(place):
                given = ",".join(f"{number:g}" for number in value)
                raise InputError(f"The click {given} is outside the image, which reaches over {_extent(grid)} mm.")
            points.append(Point(place, option == "point"))
            continue
        places = [in_mm(place) for place in value]
        if option == "box":
            if len(places) != 2:
                raise InputError(f"A box is given by two opposite corners; --box got {len(places)} places.")
            points += strokes.box(places[0], places[1], grid)
        elif option == "lasso":
            points += strokes.lasso(places, grid)
        else:
            outside = [place for place in places if not grid.contains(place)]
            if outside:
                raise InputError(f"A line leaves the image, which reaches over {_extent(grid)} mm.")
            points += strokes.scribble(places, positive=option == "scribble")
    return points


def _extent(grid: Grid) -> str:
    low, high = grid.corners_ras.min(axis=0), grid.corners_ras.max(axis=0)
    return ", ".join(f"{axis} {start:.0f} to {end:.0f}" for axis, start, end in zip("RAS", low, high, strict=True))
