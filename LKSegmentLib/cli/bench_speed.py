"""`lksegment bench networks` and `lksegment bench operators`: ratios to plain torch, measured in the same run."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from LKSegmentLib.cli.outputs import output_file, whole_files
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.errors import InputError

PARTS = ("networks", "operators")


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    """Measure one part; say its table, write it where asked, return the figures."""
    from LKSegmentLib.evaluation import speed, speed_report
    from LKSegmentLib.inference.devices import resolve_device

    target = output_file(arguments.markdown, (".md",), "table") if arguments.markdown else None
    device = str(resolve_device(arguments.device))
    rows: list[dict[str, Any]] = []
    with screen.progress("Measuring") as progress:
        if arguments.part == "networks":
            if device != "cpu":
                raise InputError("The networks are measured on the CPU; leave --device away or give --device cpu.")
            for number, network in enumerate(speed.NETWORK_CASES):
                progress(network.title, number / len(speed.NETWORK_CASES))
                rows.append({"case": asdict(network), **speed.measure_network(network, arguments.repeats)})
            table = speed_report.of_networks(rows)
        else:
            for number, operator in enumerate(speed.OPERATOR_CASES):
                progress(f"{operator.kernel}³", number / len(speed.OPERATOR_CASES))
                rows.append(
                    {"case": asdict(operator), **speed.measure_operator(operator, arguments.repeats, device)}
                )
            table = speed_report.of_operators(rows)
    machine = {"device": device, **speed.machine()}
    text = f"{table}\n{speed_report.of_machine(machine, f'lksegment bench {arguments.part}')}\n"
    screen.say(text)
    if target is not None:
        with whole_files(target) as (draft,):
            draft.write_text(text, encoding="utf-8")
        screen.say(f"The table is in {target}.")
    return {"machine": machine, "measurements": rows}
