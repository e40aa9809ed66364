"""Makes the pictures and numbers of docs/worked-examples.md from the real images, which are not in the repository.

    python docs/worked_examples.py --data ../shared/data                     everything, about half an hour on a CPU
    python docs/worked_examples.py --data ../shared/data --only lk_click     the click model alone, some minutes

The page is this folder's worked-examples.md. This writes the parts between its marks, and the pictures; what a person
saw in them is text of the page, marked with the weights it was seen with, and goes when the weights are others.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import worked_examples_network as lessons
from PIL import Image

import LKSegmentLib as lk
from LKSegmentLib.cli.main import main
from LKSegmentLib.inspection import Table
from LKSegmentLib.packages.store import locate

HERE = Path(__file__).resolve().parent
PAGE, PICTURES = HERE / "worked-examples.md", HERE / "pictures" / "worked"
WIDTH, LARGEST_PICTURE = 840, 300_000  # pixels, bytes
UNDESCRIBED = "*The pictures below are of new weights, and nobody has described them yet.*"


@dataclass(frozen=True)
class Example:
    """One inspection of the page: its mark there, the image, the model, what is asked for, and which maps are shown."""

    mark: str
    image: str
    model: str
    words: tuple[str, ...]
    shown: tuple[str, ...]
    tests: tuple[str, ...] = ()
    lesson: lessons.Lesson | None = None


CLICK_MAPS = (
    "LK attention (channel closest to the mask)",
    "near-kernel gate, decoder 1/4",
    "far-kernel gate, decoder 1/4",
)
CHANGE = "logit: change by the last click"
ATTENTION = "LK attention, level 2"
# The deepest voxel of each structure, RAS mm.
KIDNEY, SPLEEN, LIVER, LESION = "80,140.3,316.3", "-85,110.3,427.3", "80,152.3,427.3", "18,5,37"

EXAMPLES = (
    Example(
        "lk_click-ct", "01_ct_abdomen_multiorgan/ct.nii.gz", "lk_click",
        ("--point", KIDNEY, "--point", "56,116.3,373.3", "--negative", "74,110.3,400.3", "--click-changes"),
        (*CLICK_MAPS, CHANGE), ("--point", SPLEEN),
    ),
    Example(
        "lk_click-mr", "10_mr_brain_ms_multimodal/FLAIR.nii.gz", "lk_click",
        ("--point", LESION), CLICK_MAPS[:1],
    ),
    Example(
        "lka_unet-ct", "01_ct_abdomen_multiorgan/ct.nii.gz", "example_ct",
        ("--maps", ATTENTION, "--reach", LIVER), (ATTENTION, f"{ATTENTION}: window disagreement", "reach"),
        ("--maps", ATTENTION, "--point", LIVER), lessons.CT,
    ),
    Example(
        "lka_unet-mr", "10_mr_brain_ms_multimodal/T1.nii.gz", "example_mr",
        ("--maps", ATTENTION), (ATTENTION,), lesson=lessons.MR,
    ),
)  # fmt: skip


def run(words: Sequence[str]) -> dict[str, Any]:
    """What a command of `lksegment` prints as JSON. Its own sentence says what is wrong where it fails."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main([*words, "--json"])
    if code:
        raise SystemExit(code)
    result: dict[str, Any] = json.loads(printed.getvalue())
    return result


def made(example: Example, data: Path, models: Path, device: str) -> tuple[str, str]:
    """Run an example, put its pictures into their folder, and return its part of the page and the weights' hash."""
    model = example.model if example.lesson is None else str(models / example.lesson.name)
    image = str(data / example.image)
    with tempfile.TemporaryDirectory() as folder:
        told = run(["inspect", image, "--model", model, *example.words, "--device", device, "-o", folder])
        lines = [f"    {command_of(example, 'inspect', (*example.words, '-o', 'maps'))}", ""]
        for name in example.shown:
            found = next(Path(path) for path in told["files"] if path.endswith(f"-{slug(name)}.png"))
            target = PICTURES / f"{example.mark}-{slug(name)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.open(found)
            smaller = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
            smaller.save(target, optimize=True)
            if target.stat().st_size > LARGEST_PICTURE:
                raise SystemExit(f"The picture {target.name} is too large: {target.stat().st_size} bytes.")
            passport = next(shown["passport"] for shown in told["maps"] if shown["name"] == name)
            lines += [f"**{name}.** {passport['operator']}.", "", f"![{name}](pictures/worked/{target.name})", ""]
            if "in words" in passport:
                lines += [passport["in words"], ""]
        lines += numbers_of(told["tables"], example.shown)
    manifest = lk.packages.read_manifest(locate(model))
    weights = manifest.files["weights.safetensors"].sha256[:12]
    return "\n".join([*lines, f"Weights {weights}… . {manifest.trained_on}"]), weights


def tested(example: Example, data: Path, models: Path, device: str) -> str:
    """What the example's maps are worth: its part of the page."""
    model = example.model if example.lesson is None else str(models / example.lesson.name)
    told = run(["evaluate", "maps", str(data / example.image), "--model", model, *example.tests, "--device", device])
    lines = [f"    {command_of(example, 'evaluate maps', example.tests)}", "", f"Tested at {told['data']}:", ""]
    lines += [f"- **{name}**: {entry['sentence']} {scores_of(entry['scores'])}" for name, entry in told["maps"].items()]
    weights = lk.packages.read_manifest(locate(model)).files["weights.safetensors"].sha256[:12]
    return "\n".join([*lines, "", f"Weights {weights}…"])


def scores_of(scores: dict[str, Any]) -> str:
    """The scores by probability: this map's and those of the other orders."""
    orders = ("this map", "random", "edge strength", "nearness")
    return "(" + ", ".join(f"{order} {scores[order]['probability']:.2f}" for order in orders) + ")"


def numbers_of(tables: Sequence[dict[str, Any]], shown: Sequence[str]) -> list[str]:
    """The means by segment of the maps that are shown, and what each click changed, as tables of the page."""
    lines: list[str] = []
    for told in tables:
        table = Table.from_json(told)
        if table.name == "means by segment":
            columns = ("segment", "map", "mean inside", "mean in the shell", "mean elsewhere")
            rows = [row for row in as_rows(table, columns) if row[1] in shown]
            lines += ["Means inside each segment, within 5 mm around it, and elsewhere:", "", *markdown(columns, rows)]
        elif table.name == "changes by click":
            columns = ("click", "kind", "voxels", "gained", "lost", "logit at the click", "logit at the click, change")
            lines += ["What each click changed:", "", *markdown(columns, as_rows(table, columns))]
    return lines


def as_rows(table: Any, columns: Sequence[str]) -> list[list[str]]:
    return [list(row) for row in zip(*([cell(value) for value in table.column(name)] for name in columns), strict=True)]


def cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = "|" + "|".join("---" for _ in columns) + "|"
    return [f"| {' | '.join(columns)} |", marks, *(f"| {' | '.join(row)} |" for row in rows), ""]


def command_of(example: Example, command: str, words: Sequence[str]) -> str:
    quoted = [f'"{word}"' if " " in word else word for word in words]
    model = "" if example.model == "lk_click" else f" --model {example.model}"
    return f"lksegment {command} {example.image}{model} {' '.join(quoted)}"


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write(mark: str, text: str, weights: str | None = None) -> None:
    """Put a part of the page between its marks; what a person saw there with other weights goes."""
    page = PAGE.read_text(encoding="utf-8")
    start, end = f"<!-- made: {mark} -->", f"<!-- end: {mark} -->"
    if start not in page or end not in page:
        raise SystemExit(f"{PAGE.name} has no marks for {mark}.")
    before, rest = page.split(start)
    page = f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}"
    seen = re.compile(rf"<!-- seen: {re.escape(mark)} (\w+) -->\n.*?<!-- end seen -->", re.DOTALL)
    found = seen.search(page)
    if weights is not None and found is not None and found[1] != weights:
        words = f"<!-- seen: {mark} {weights} -->\n{UNDESCRIBED}\n<!-- end seen -->"
        page = page[: found.start()] + words + page[found.end() :]
    PAGE.write_text(page, encoding="utf-8")


def begin() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--only", metavar="WORD", default="", help="examples whose mark begins so: lk_click, lka_unet")
    parser.add_argument("--models", type=Path, help="folder of networks trained before; else they are trained anew")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training for each network (default: 8)")
    parser.add_argument("--no-tests", action="store_true", help="pictures and numbers only: what maps are worth stays")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = arguments.models or Path(folder)
        for example in EXAMPLES:
            if not example.mark.startswith(arguments.only):
                continue
            if example.lesson is not None and not (models / example.lesson.name).is_dir():
                print(f"training {example.lesson.name} for {arguments.minutes:g} minutes", file=sys.stderr, flush=True)
                lessons.train(example.lesson, arguments.data, models, arguments.minutes)
            print(example.mark, file=sys.stderr, flush=True)
            write(example.mark, *made(example, arguments.data, models, arguments.device))
            if example.tests and not arguments.no_tests:
                write(f"{example.mark} tests", tested(example, arguments.data, models, arguments.device))


if __name__ == "__main__":
    begin()
