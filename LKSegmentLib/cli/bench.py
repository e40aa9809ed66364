"""`lksegment bench`: how fast this machine is, against what the project promises."""

from __future__ import annotations

import argparse
import os
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from LKSegmentLib.cli import bench_speed
from LKSegmentLib.cli.arguments import add_device
from LKSegmentLib.cli.command import Command
from LKSegmentLib.cli.outputs import output_file, whole_files
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.errors import InputError

if TYPE_CHECKING:
    from LKSegmentLib.cli.measurements import Measurement

_PARTS = ("operators", "clicks", "segmentation", "large")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "part", nargs="?", choices=bench_speed.PARTS,
        help="instead of the project's limits measure networks or operators against plain torch, or inspection "
        "(recording and reach, all networks in full width: many minutes) against plain runs",
    )
    add_device(parser)
    parser.add_argument(
        "--only", choices=_PARTS, action="append",
        help="of the limits this part only; may be repeated (default: all but 'large', a CT of 512 x 512 x 300)",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement (default: 3)")
    parser.add_argument("--markdown", metavar="FILE.md", help="write the table there")


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    if arguments.repeats < 1:
        raise InputError(f"At least one repeat is needed, not {arguments.repeats}.")
    if arguments.part is not None:
        if arguments.only:
            raise InputError(f"--only chooses among the limits: leave it out of bench {arguments.part}.")
        return bench_speed.run(arguments, screen)

    from LKSegmentLib.cli import measurements
    from LKSegmentLib.inference.devices import resolve_device
    from LKSegmentLib.prompts import Point
    from LKSegmentLib.training.abdomen import make_abdomen

    target = output_file(arguments.markdown, (".md",), "table") if arguments.markdown else None
    device = str(resolve_device(arguments.device))
    parts = [part for part in _PARTS if part in (arguments.only or _PARTS[:-1])]
    places = [(70.0, 0.0, 60.0), (40.0, 30.0, 80.0), (100.0, -20.0, 70.0), (0.0, 40.0, 84.0), (60.0, 20.0, 100.0)]
    found: list[Measurement] = []
    with screen.progress("Measuring") as progress:
        volume = make_abdomen().volume
        for number, part in enumerate(parts):
            progress(part, number / len(parts))
            if part == "operators":
                found += measurements.operators(arguments.repeats)
            elif part == "clicks":
                found += measurements.clicks(volume, [Point(place) for place in places], device, arguments.repeats)
            elif part == "segmentation":
                found += measurements.segmentation(volume, device, arguments.repeats)
            else:
                found += measurements.large_volume(device)
    machine = _machine(device)
    markdown = _markdown(found, machine)
    screen.say(markdown)
    if target is not None:
        with whole_files(target) as (draft,):
            draft.write_text(markdown, encoding="utf-8")
        screen.say(f"The table is in {target}.")
    return {"machine": machine, "measurements": [{**asdict(entry), "ratio": entry.ratio} for entry in found]}


def _machine(device: str) -> dict[str, Any]:
    import torch

    return {
        "device": device,
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": platform.platform(),
    }


def _markdown(found: list[Measurement], machine: dict[str, Any]) -> str:
    lines = ["| what | median | limit | of the limit | repeats | note |", "|---|---:|---:|---:|---:|---|"]
    for entry in found:
        limit = "" if entry.limit is None else f"{entry.limit:g} {entry.unit}"
        ratio = "" if entry.ratio is None else f"{100 * entry.ratio:.0f} %"
        lines.append(
            f"| {entry.name} | {entry.value:.3g} {entry.unit} | {limit} | {ratio} | {entry.repeats} | {entry.note} |"
        )
    told = ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)
    return "\n".join([*lines, "", f"Measured by `lksegment bench`: {told}.", ""])


COMMAND = Command(
    name="bench",
    summary="Measure speed and memory on this machine against the project's limits.",
    example=(
        "  lksegment bench\n  lksegment bench networks --json\n  lksegment bench inspection\n"
        "  lksegment bench --only large --markdown bench.md"
    ),
    configure=configure,
    run=run,
)
