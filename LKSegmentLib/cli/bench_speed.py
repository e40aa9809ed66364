"""`lksegment bench networks`, `operators` and `inspection`: ratios to plain torch or to plain runs, in the same run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from LKSegmentLib.cli.outputs import output_file, whole_files
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.errors import InputError

PARTS = ("networks", "operators", "inspection")


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    """Measure one part; say its table, write it where asked, return the figures."""
    from LKSegmentLib.evaluation import speed, speed_report
    from LKSegmentLib.inference.devices import resolve_device

    target = output_file(arguments.markdown, (".md",), "table") if arguments.markdown else None
    chosen = "cpu" if arguments.part != "operators" and arguments.device == "auto" else arguments.device
    device = str(resolve_device(chosen))
    if arguments.part == "inspection" and device != "cpu":
        raise InputError("Inspection is measured on the CPU; leave --device away or give --device cpu.")
    if arguments.part == "networks" and device == "mps":
        raise InputError("The networks are measured on the CPU or with CUDA; give --device cpu or --device cuda.")
    rows: list[dict[str, Any]] = []
    with screen.progress("Measuring") as progress:
        if arguments.part == "inspection":
            table, rows = _inspection(arguments.repeats, progress)
        elif arguments.part == "networks":
            for number, network in enumerate(speed.NETWORK_CASES):
                progress(network.title, number / len(speed.NETWORK_CASES))
                found = speed.measure_network(network, arguments.repeats, device)
                rows.append({"case": speed.promised(network, device), **found})
            table = speed_report.of_networks(rows)
        else:
            for number, operator in enumerate(speed.OPERATOR_CASES):
                progress(f"{operator.kernel}³", number / len(speed.OPERATOR_CASES))
                found = speed.measure_operator(operator, arguments.repeats, device)
                rows.append({"case": speed.promised(operator, device), **found})
            table = speed_report.of_operators(rows)
            if device != "cpu":
                table += f"\n{speed_report.of_methods(rows)}"
    machine = {"device": device, **speed.machine(device)}
    text = f"{table}\n{speed_report.of_machine(machine, f'lksegment bench {arguments.part}')}\n"
    screen.say(text)
    if target is not None:
        with whole_files(target) as (draft,):
            draft.write_text(text, encoding="utf-8")
        screen.say(f"The table is in {target}.")
    return {"machine": machine, "measurements": rows}


def _inspection(repeats: int, progress: Callable[[str, float], None]) -> tuple[str, list[dict[str, Any]]]:
    from LKSegmentLib.evaluation import inspection_speed, inspection_speed_report

    rows: list[dict[str, Any]] = []
    steps = len(inspection_speed.NETWORK_CASES) + 1
    for number, case in enumerate(inspection_speed.NETWORK_CASES):
        progress(case.title, number / steps)
        rows.append({"case": asdict(case), **inspection_speed.measure_network(case, repeats)})
    progress("lk_click", (steps - 1) / steps)
    clicks = inspection_speed.measure_clicks(repeats)
    tables = (
        inspection_speed_report.of_recording(rows),
        inspection_speed_report.of_clicks(clicks),
        inspection_speed_report.of_reach(rows),
    )
    return "\n".join(tables), [*rows, {"case": {"title": "lk_click, one click", "name": "lk_click"}, **clicks}]
