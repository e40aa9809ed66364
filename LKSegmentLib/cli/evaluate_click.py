"""`lksegment evaluate click`: how good a click model is, click after click, beside classical methods."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LKSegmentLib.cli.arguments import add_click_model, add_device
from LKSegmentLib.cli.command import Parser, add_json, example
from LKSegmentLib.cli.outputs import output_file, whole_files
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.errors import InputError

if TYPE_CHECKING:

    from LKSegmentLib.cli.click_pictures import Panel
    from LKSegmentLib.evaluation.click_scores import Baseline, ClickScore, Step
    from LKSegmentLib.evaluation.structures import Structure
    from LKSegmentLib.packages import Package
    from LKSegmentLib.prompts import Point
    from LKSegmentLib.volumes import MaskBox

EXAMPLE = (
    "  lksegment evaluate click --data ../shared/data --markdown scores.md --picture scores.png\n"
    "  lksegment evaluate click --data ../shared/data --model my_package --baselines none --clicks 5"
)

_BASELINES = ("grow-from-seeds", "region-growing", "random-walker")
_SLOW = ("random-walker-fine",)  # only if asked for
_SHOWN = (1, 3, 10)  # clicks, in the picture


def configure(kinds: argparse._SubParsersAction[Parser]) -> None:
    """Add `click` to the sub-parsers of `evaluate`; `clicks` is the same."""
    summary = "Click through the structures of labelled images; each click corrects the largest error."
    click = kinds.add_parser("click", aliases=["clicks"], help=summary, description=summary, **example(EXAMPLE))
    click.add_argument(
        "--data", required=True, metavar="FOLDER",
        help="folder with the labelled cases: those of this project, or any that a cases.json in it lists",
    )  # fmt: skip
    add_click_model(click)
    add_device(click)
    click.add_argument("--clicks", type=int, default=10, help="clicks on each structure (default: 10)")
    click.add_argument(
        "--baselines", metavar="NAME,NAME",
        help=f"other methods that get the same clicks: {', '.join(_BASELINES)} (default: these; with --whole none), "
        f"{', '.join(_SLOW)} (slow), or none",
    )  # fmt: skip
    click.add_argument("--structures", metavar="NAME,NAME", help="only these, by name (default: all)")
    click.add_argument("--case", metavar="FOLDER", help="only this case (default: all)")
    click.add_argument(
        "--whole", action="store_true", help="click on the whole image, as a person does, not on a cube around each"
    )
    click.add_argument(
        "--store", action="store_true",
        help="write the mean scores into the model's package; those with --whole stand beside those without",
    )  # fmt: skip
    click.add_argument("--markdown", metavar="FILE.md", help="write the report there")
    click.add_argument(
        "--picture", metavar="FILE.png",
        help="draw the best, the median and the worst structure there; with --whole the last masks of one case",
    )  # fmt: skip
    add_json(click)


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib import packages
    from LKSegmentLib.evaluation import click_report
    from LKSegmentLib.evaluation.speed import machine
    from LKSegmentLib.inference.devices import resolve_device

    if arguments.clicks < 1:
        raise InputError(f"At least one click is needed, not {arguments.clicks}.")
    page = output_file(arguments.markdown, (".md",), "report") if arguments.markdown else None
    picture = output_file(arguments.picture, (".png",), "picture") if arguments.picture else None
    if picture is not None:
        _require_drawing(arguments.whole)
    baselines = _baselines(arguments.baselines, arguments.whole)
    device = str(resolve_device(arguments.device))
    package = packages.load(arguments.model)
    rows, structures, seen = _scores(arguments, package, device, baselines, screen)

    manifest = package.manifest
    about: dict[str, Any] = {
        "model": manifest.name,
        "weights_sha256": manifest.files["weights.safetensors"].sha256,
        "trained_on": manifest.trained_on,
        "device": device,
        "machine": machine(),
        "on": "whole image" if arguments.whole else "cube around each structure, 64³ voxels",
    }
    screen.say(click_report.as_table(rows))
    caption = ""
    if picture is not None:
        caption = _draw(picture, rows, structures, seen, arguments.whole)
        screen.say(f"The picture is in {picture}.")
    if page is not None:
        beside = os.path.relpath(picture, page.parent) if picture is not None else ""
        where = "on the whole image" if arguments.whole else "on a cube around each structure"
        told = (
            f"Weights (SHA-256): `{about['weights_sha256']}`. {manifest.trained_on}\n\n"
            f"Measured on {device}, {_told(about['machine'])}."
        )
        title = f"How good {manifest.name} is, click after click, {where}"
        text = click_report.as_page(
            rows, title, told, _command(arguments), arguments.whole, Path(beside).as_posix() if beside else "", caption
        )
        with whole_files(page) as (draft,):
            draft.write_text(text, encoding="utf-8")
        screen.say(f"The report is in {page}.")
    if arguments.store:
        before = packages.read_manifest(package.source).scores
        others = [dict(score) for score in before if score.get("on") != about["on"]]
        scores = [*others, click_report.stored_score(rows, about["on"])]
        screen.say(f"The scores are in {packages.store_scores(package.source, scores)}.")
    return click_report.as_json(rows, about)


def _scores(
    arguments: argparse.Namespace, package: Package, device: str, baselines: Sequence[Baseline], screen: Screen
) -> tuple[list[ClickScore], list[Structure], list[dict[int, tuple[MaskBox, Sequence[Point]]]]]:
    """The scores, the structures as they were clicked on, and the masks and clicks that a picture may show of each."""
    from LKSegmentLib.evaluation.click_scores import ModelMethod, score
    from LKSegmentLib.evaluation.structures import real_structures
    from LKSegmentLib.volumes import MaskBox

    names = [name.strip() for name in arguments.structures.split(",")] if arguments.structures else None
    shown = {*_SHOWN, arguments.clicks} if arguments.picture else set()
    method = ModelMethod(package, device)
    rows, structures, seen = [], [], []
    with screen.progress("Evaluating") as progress:
        progress("reading", 0.0)
        for whole in real_structures(Path(arguments.data).expanduser(), arguments.case, names):
            structure = whole if arguments.whole else whole.cropped()
            if structure.target.any():
                structures.append(structure)
            else:
                screen.note(f"{whole.case}, {whole.name}: left out, too thin for a cube of 64³ voxels around it.")
        if not structures:
            raise InputError("None of these structures has a connected piece of 300 voxels.")
        if names is not None:
            structures.sort(key=lambda structure: names.index(structure.name))
        if arguments.picture and arguments.whole and len({structure.case for structure in structures}) > 1:
            raise InputError("A picture of whole images shows one case: name it with --case.")
        for number, structure in enumerate(structures):
            progress(f"{structure.case}: {structure.name}", number / len(structures))
            kept: dict[int, tuple[MaskBox, Sequence[Point]]] = {}

            def watch(count: int, step: Step, kept: dict[int, tuple[MaskBox, Sequence[Point]]] = kept) -> None:
                if count in shown:
                    kept[count] = (MaskBox.of(step.mask), step.points)

            rows.append(score(structure, method, baselines, arguments.clicks, watch))
            seen.append(kept)
    return rows, structures, seen


def _baselines(wanted: str | None, whole: bool) -> list[Baseline]:
    """The methods to compare with.

    Raises InputError for a name that is none, or one whose library is missing, or any with whole images.
    """
    names = [part.strip() for part in (wanted or ("none" if whole else ",".join(_BASELINES))).split(",")]
    if names == ["none"]:
        return []
    unknown = [name for name in names if name not in _BASELINES + _SLOW]
    if unknown:
        raise InputError(f"There is no baseline {unknown[0]!r}; there are: {', '.join(_BASELINES + _SLOW)}, or none.")
    if whole:
        raise InputError("The other methods need a cube around the structure: leave out --whole or --baselines.")
    from LKSegmentLib.evaluation import baselines, click_report
    from LKSegmentLib.evaluation.click_scores import Baseline

    chosen = []
    if "grow-from-seeds" in names:
        from LKSegmentLib.cli.click_files import require_slicer

        require_slicer()
        from LKSegmentLib.scene.grow_from_seeds import GrowFromSeeds

        chosen.append(Baseline(click_report.GROW_FROM_SEEDS, GrowFromSeeds(), own_clicks=True))
    if "region-growing" in names:
        chosen.append(Baseline(click_report.REGION_GROWING, baselines.region_growing))
    if "random-walker" in names or "random-walker-fine" in names:
        baselines.require_scikit_image()
    if "random-walker" in names:
        chosen.append(Baseline(click_report.RANDOM_WALKER, baselines.random_walker))
        chosen.append(Baseline(click_report.RANDOM_WALKER_AS_IT_COMES, baselines.random_walker_as_it_comes))
    if "random-walker-fine" in names:
        chosen.append(Baseline(click_report.RANDOM_WALKER_FINE, baselines.random_walker_fine))
    return chosen


def _require_drawing(whole: bool) -> None:
    """Raises InputError, before the work, where the picture could not be drawn after it."""
    if whole:
        from LKSegmentLib.cli.click_files import require_slicer

        require_slicer()
    else:
        from LKSegmentLib.cli.click_pictures import require_matplotlib

        require_matplotlib()


def _draw(
    path: Path,
    rows: Sequence[ClickScore],
    structures: Sequence[Structure],
    seen: Sequence[dict[int, tuple[MaskBox, Sequence[Point]]]],
    whole: bool,
) -> str:
    """Draw the picture; returns its caption."""
    if whole:
        from LKSegmentLib.cli.structures_picture import write_structures_picture

        shape = structures[0].volume.grid.shape
        last = {row.name: kept[max(kept)][0].full(shape) for row, kept in zip(rows, seen, strict=True)}
        with whole_files(path) as (draft,):
            write_structures_picture(structures[0].volume, last, draft)
        return "The masks after the last click." + _sources(structures[:1])
    from LKSegmentLib.cli.click_pictures import Panel, write_click_picture
    from LKSegmentLib.evaluation.click_statistics import best_median_worst

    panels: list[Panel] = []
    for what, row in zip(("best", "median", "worst"), best_median_worst(rows), strict=True):
        number = next(index for index, other in enumerate(rows) if other is row)
        panels.append(Panel(what, structures[number], row, seen[number]))
    with whole_files(path) as (draft,):
        write_click_picture(panels, draft)
    return (
        "Rows: the structures with the best, the median and the worst Dice after the last click. Orange: the "
        "reference; blue: the mask; + and ×: positive and negative clicks within two voxels of the slice, the axial "
        "one with most of the structure (the patient's right is on the left)."
        + _sources([panel.structure for panel in panels])
    )


def _sources(structures: Sequence[Structure]) -> str:
    """Where the images come from, as their licences ask."""
    told = {f"{entry.source or entry.case} ({entry.licence})": None for entry in structures if entry.licence}
    return f" Images, not part of this repository: {', '.join(told)}." if told else ""


def _command(arguments: argparse.Namespace) -> str:
    """The command that writes the page, with places instead of paths."""
    given = ["lksegment evaluate click --data FOLDER"]
    given += [f"--model {Path(arguments.model).name}"] if arguments.model != "lk_click" else []
    given += [f"--case {arguments.case}"] if arguments.case else []
    given += [f"--structures {arguments.structures}"] if arguments.structures else []
    given += ["--whole"] if arguments.whole else []
    given += [f"--baselines {arguments.baselines}"] if arguments.baselines else []
    given += [f"--clicks {arguments.clicks}", "--markdown FILE.md"]
    given += ["--picture FILE.png"] if arguments.picture else []
    return " ".join(given)


def _told(machine: dict[str, Any]) -> str:
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    load = "" if machine["load"] is None else f", load of the machine at the end {machine['load']:.1f}"
    return f"{machine['processor']}, {threads}, torch {machine['torch']}{load}"
