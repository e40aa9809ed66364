"""`lksegment networks`: the network architectures, and everything known about one of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
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
        cells = [
            [
                row["name"],
                f"{row['params'] / 1e6:.2f} M",
                f"{row['macs'] / 1e9:.2f} G",
                "x".join(str(length) for length in row["size"]),
                row["status"],
                row["title"],
            ]
            for row in rows
        ]
        screen.say(table(cells, ["name", "parameters", "MACs", "input (k,j,i)", "label", "what it is"]))
        screen.say(f"\nMACs: {description.COUNTING}")
        screen.say("lksegment networks NAME says what a label rests on, and all else that is known.")
        return {"networks": rows}
    known = describe(arguments.name)
    for line in lines_about(known):
        screen.say(line)
    return known


def lines_about(known: Mapping[str, Any]) -> Iterator[str]:
    """What `describe` tells, line by line: the same as the network's part of docs/networks.md."""
    yield f"{known['title']} ({known['name']})"
    yield known["summary"]
    yield f"\n{known['status'].capitalize()}. {known['status_note']}"
    reference = ", ".join(f"{option}={value!r}" for option, value in known["reference"].items())
    yield f"\nParameters: {known['params']:,}"
    yield f"MACs: {known['macs']:,} at {'x'.join(map(str, known['reference_size']))}"
    yield f"  counted with {reference}. {known['counting']}"
    yield f"Sizes: {sizes(known)}"
    if known["published"]:
        yield "\nPublished, and here"
        for one in known["published"]:
            yield f"  {one['quantity']}: {one['figure']}. {one['note']}"
    if known["receptive_fields"]:
        yield f"\n{known['receptive_note']}"
        rows = [[str(field[column]) for column in ("stage", "stride", "voxels")] for field in known["receptive_fields"]]
        yield table(rows, ["stage", "stride", "voxels"])
    for title, key in (
        ("Known problems of what was published", "known_problems"),
        ("Where this implementation departs", "deviations"),
        ("Remarks", "remarks"),
    ):
        if known[key]:
            yield f"\n{title}"
            yield from (f"  - {entry}" for entry in known[key])
    yield "\nOptions"
    for option, facts in known["options"].items():
        choices = f", one of {', '.join(map(str, facts['choices']))}" if facts["choices"] else ""
        value = "must be given" if facts["required"] else f"default {facts['default']}"
        yield f"  {option}: {value}{choices}"
    yield f"\nLicence: {known['licence']}"
    yield f"Citation: {known['citation']}"


def sizes(known: Mapping[str, Any]) -> str:
    """Which input sizes a network takes."""
    multiple = "any" if known["size_multiple"] == 1 else f"multiples of {known['size_multiple']}"
    return multiple if known["minimum_size"] == 1 else f"{multiple}, at least {known['minimum_size']}"


COMMAND = Command(
    name="networks",
    summary="List the networks, or say all that is known about one.",
    example="  lksegment networks\n  lksegment networks dnet --json",
    configure=configure,
    run=run,
)
