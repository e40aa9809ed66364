"""`lksegment evaluate maps`: what the maps of a model are worth, by deletion, insertion and shuffled weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LKSegmentLib.cli.arguments import add_device, add_image, triple
from LKSegmentLib.cli.command import Parser, add_json, example
from LKSegmentLib.cli.outputs import coming_folder, output_file, output_folder, whole_files
from LKSegmentLib.cli.screen import Screen, table
from LKSegmentLib.errors import InputError

if TYPE_CHECKING:
    from LKSegmentLib.inspection.examined import ExaminedWindow
    from LKSegmentLib.inspection.faithfulness import Faithfulness
    from LKSegmentLib.packages import Manifest, Package
    from LKSegmentLib.volumes import Volume

EXAMPLE = (
    "  lksegment evaluate maps ct.nii.gz --point 80,152,427 --point=-85,110,427\n"
    '  lksegment evaluate maps ct.nii.gz --model my_organs --maps "fusion gate, decoder 1/1" --point 62,-20,85 --store'
)


def configure(kinds: argparse._SubParsersAction[Parser]) -> None:
    """Add `maps` to the things that can be evaluated."""
    summary = "Test whether the answer hangs on the voxels that a map ranks high, and whether the map was learnt."
    parser = kinds.add_parser("maps", help=summary, description=summary, **example(EXAMPLE))
    add_image(parser)
    parser.add_argument(
        "--model", default="lk_click", metavar="NAME",
        help="installed model, or path of a model package (default: lk_click)",
    )  # fmt: skip
    parser.add_argument(
        "--maps", action="append", metavar="NAME",
        help='a map, or "NAME #5" for one channel of it; may be repeated (default: the default set, of lk_click all)',
    )  # fmt: skip
    parser.add_argument(
        "--point", action="append", type=triple, metavar="R,A,S", dest="places",
        help="a place to test at, RAS mm, each by itself; may be repeated. A click model is clicked there, of another "
        "one it is the window there (default: the middle of the image)",
    )  # fmt: skip
    parser.add_argument("--label", type=int, metavar="N", help="which label's answer (default: the largest there)")
    parser.add_argument("--store", action="store_true", help="write sentence and scores into the model's package")
    parser.add_argument("--markdown", metavar="FILE.md", help="write the scores there")
    parser.add_argument("-o", "--out", metavar="FOLDER", help="write the curves there, a CSV each")
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib import packages
    from LKSegmentLib.engine.failures import plain_errors
    from LKSegmentLib.packages.store import locate
    from LKSegmentLib.volumes import read_volume

    markdown = output_file(arguments.markdown, (".md",), "table") if arguments.markdown else None
    folder = coming_folder(Path(arguments.out).expanduser().absolute(), "curves") if arguments.out else None
    manifest = packages.read_manifest(locate(arguments.model))
    by_clicks = manifest.kind == "click"
    if by_clicks and not arguments.places:
        raise InputError("The maps of a click model depend on the clicks: give --point R,A,S.")
    if by_clicks and arguments.label is not None:
        raise InputError(f"The model {manifest.name!r} answers with one structure: leave --label out.")
    volume = read_volume(arguments.image, arguments.frame, as_channels=not by_clicks and arguments.frame is None)
    places = arguments.places or [tuple(float(value) for value in volume.grid.centre_ras)]
    package = packages.load(arguments.model)
    from LKSegmentLib.inspection.faithfulness import measure

    with plain_errors(arguments.device), screen.progress("Testing maps") as progress:
        windows = [_window(volume, package, place, arguments) for place in places]
        names = arguments.maps or _default_names(package, windows[0])
        found = measure(windows, names, progress=progress)
    data = _data(arguments.image, len(places), by_clicks, windows)
    screen.say(table(_rows(found), _HEADER))
    screen.say("Scores by probability / by Dice: the higher, the more the answer hangs on voxels that come first.\n")
    for entry in found:
        screen.say(f"{entry.map}: {entry.sentence}")
    files = _write_curves(found, folder) if folder is not None else []
    if markdown is not None:
        with whole_files(markdown) as (draft,):
            draft.write_text(_page(found, manifest, data, arguments), encoding="utf-8")
        files.append(markdown)
        screen.say(f"The scores are in {markdown}.")
    weights = manifest.files["weights.safetensors"].sha256
    stored = {entry.map: entry.as_json(data, weights) for entry in found}
    if arguments.store:
        screen.say(f"The scores are kept in {packages.store_faithfulness(package.source, stored)}.")
    return {"data": data, "maps": stored, "files": files}


_HEADER = ["map", "this map", "random", "± sd", "edge strength", "nearness", "shuffled weights"]


def _rows(found: list[Faithfulness]) -> list[list[str]]:
    """Scores by probability / by Dice; the last column is the size of the rank correlation."""
    rows = []
    for entry in found:
        columns = ("this map", "random", "random, standard deviation", "edge strength", "nearness")
        pairs = [entry.scores[column] for column in columns]
        alike = entry.scores["rank correlation with shuffled weights"]
        words = [f"{pair['probability']:.2f} / {pair['Dice']:.2f}" for pair in pairs]
        rows.append([entry.map, *words, "constant" if alike is None else f"{alike:.2f}"])
    return rows


def _window(
    volume: Volume, package: Package, place: tuple[float, float, float], arguments: argparse.Namespace
) -> ExaminedWindow:
    from LKSegmentLib.inference.clicks import ClickModelSession
    from LKSegmentLib.inference.devices import resolve_device
    from LKSegmentLib.inspection.examined import ClickedWindow, VolumeWindow
    from LKSegmentLib.prompts import Point

    if package.manifest.kind == "click":
        session = ClickModelSession(volume, package, resolve_device(arguments.device))
        return ClickedWindow(session, [Point(place)])
    return VolumeWindow(volume, package, place, arguments.device, arguments.label)


def _default_names(package: Package, window: ExaminedWindow) -> list[str]:
    from LKSegmentLib.inspection.by_network import exposed
    from LKSegmentLib.inspection.click_maps import EXPOSED
    from LKSegmentLib.inspection.exposed import choose

    if package.manifest.kind == "click":
        return [entry.name for entry in EXPOSED]
    chosen = choose(exposed(window.network), None, package.manifest.name)
    return [entry.name for entry in chosen if entry.exposed.extent == "voxels"]


def _data(image: str, places: int, by_clicks: bool, windows: list[ExaminedWindow]) -> str:
    """On what was measured, in words: the folder and file, not where they lie on this machine."""
    path = Path(image)
    name = "/".join(path.resolve().parts[-2:])
    where = f"{places} place{'s' if places > 1 else ''}"
    clicked = "one click" if places == 1 else "one click each"
    how = clicked if by_clicks else ", ".join(dict.fromkeys(window.label for window in windows))
    return f"{where} of one image, {name}; {how}"


def _write_curves(found: list[Faithfulness], folder: Path) -> list[Path]:
    from LKSegmentLib.cli.click_files import slugs

    tables = [entry for faithfulness in found for entry in faithfulness.tables]
    names = slugs([entry.name for entry in tables])
    paths = [output_folder(folder, "curves") / f"{name}.csv" for name in names]
    with whole_files(*paths) as drafts:
        for draft, entry in zip(drafts, tables, strict=True):
            draft.write_text(entry.as_csv(), encoding="utf-8")
    return paths


def _page(found: list[Faithfulness], manifest: Manifest, data: str, arguments: argparse.Namespace) -> str:
    weights = manifest.files["weights.safetensors"].sha256[:12]
    given = " ".join(f"--point {','.join(f'{value:g}' for value in place)}" for place in arguments.places or ())
    lines = [
        f"# What the maps of {manifest.name} are worth",
        "",
        f"Weights {weights}… . Measured on {data}. Each score is the area under the insertion curve minus that under "
        "the deletion curve, by the mean probability in the answer / by the Dice with the answer: the higher the more "
        "the answer hangs on the voxels that come first. Shuffled weights: the size of the rank correlation of the map "
        "with itself when all weights are shuffled; low is right. A few places of one image say little of another.",
        "",
        f"    lksegment evaluate maps {Path(arguments.image).name} --model {manifest.name} {given} --markdown FILE.md",
        "",
        f"| {' | '.join(_HEADER)} |",
        "|---|" + "---:|" * (len(_HEADER) - 1),
        *(f"| {' | '.join(row)} |" for row in _rows(found)),
        "",
        *(f"- **{entry.map}**: {entry.sentence}" for entry in found),
    ]
    return "\n".join(lines) + "\n"
