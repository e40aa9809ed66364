"""`lksegment networks`: the network architectures, and everything known about one of them."""

from __future__ import annotations

import argparse
from typing import Any

from LKSegmentLib.cli.command import Command
from LKSegmentLib.cli.screen import Screen, table


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="say all that is known about this one")


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib.networks import describe, description

    if arguments.name is None:
        with screen.progress("Counting parameters and operations"):
            rows = description.table()
        screen.say(
            table(
                [
                    [
                        row["name"],
                        f"{row['params'] / 1e6:.2f} M",
                        f"{row['macs'] / 1e9:.1f} G",
                        "x".join(str(length) for length in row["size"]),
                        row["title"],
                    ]
                    for row in rows
                ],
                ["name", "parameters", "MACs", "input (k,j,i)", "what it is"],
            )
        )
        return {"networks": rows}
    known = describe(arguments.name)
    screen.say(f"{known['title']} ({known['name']})")
    screen.say(known["summary"])
    screen.say(f"\nParameters: {known['params']:,}")
    screen.say(f"Operations: {known['macs']:,} ({known['counting']})")
    options = known["options"].items()
    for option, facts in options:
        choices = f", one of {', '.join(map(str, facts['choices']))}" if facts["choices"] else ""
        value = "must be given" if facts["required"] else f"default {facts['default']}"
        screen.say(f"  {option}: {value}{choices}")
    screen.say(f"\nCitation: {known['citation']}")
    return known


COMMAND = Command(
    name="networks",
    summary="List the networks, or say all that is known about one.",
    example="  lksegment networks\n  lksegment networks dnet --json",
    configure=configure,
    run=run,
)
