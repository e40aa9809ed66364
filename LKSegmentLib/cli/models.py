"""`lksegment models`: the installed model packages, what they are for, and under which licence."""

from __future__ import annotations

import argparse
from typing import Any

from LKSegmentLib.cli.command import Command
from LKSegmentLib.cli.screen import Screen, table
from LKSegmentLib.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this model's whole manifest, and check its files")
    parser.add_argument("--maps", action="store_true", help="list what model NAME shows: the names for inspect --maps")


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib import packages

    if arguments.maps:
        if arguments.name is None:
            raise InputError("--maps lists what one model shows: give its name, lksegment models NAME --maps.")
        return _maps(arguments.name, screen)
    if arguments.name is not None:
        manifest = packages.verify(arguments.name)
        for field, value in manifest.to_json().items():
            if value not in (None, "", [], {}):
                screen.say(f"{field}: {value}")
        screen.say("All files are there and unchanged.")
        return manifest.to_json()
    entries = packages.catalogue()
    broken = packages.broken_packages()
    rows = [[entry.name, entry.kind, entry.licence, entry.title] for entry in entries]
    if rows:
        screen.say(table(rows, ["name", "kind", "licence", "title"]))
    else:
        screen.say("No models are installed.")
    screen.say(f"\nYour own models go into {packages.user_folder()}.")
    for package in broken:
        screen.note(package.problem)
    return {
        "models": [
            {
                "name": entry.name,
                "title": entry.title,
                "kind": entry.kind,
                "licence": entry.licence,
                "summary": entry.summary,
                "folder": entry.folder,
                "built_in": entry.built_in,
                "labels": [label.name for label in entry.labels],
            }
            for entry in entries
        ],
        "broken": [{"folder": package.folder, "problem": package.problem} for package in broken],
        "user_folder": packages.user_folder(),
    }


def _maps(name: str, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib import packages
    from LKSegmentLib.inspection.listing import listed

    found = listed(packages.load(name))
    groups = {
        "recorded": "while the model runs",
        "gradients": "gradients",
        "clicks": "by click",
        "segments": "by segment",
        "weights": "of the weights alone",
    }
    rows = [
        [
            entry["words"],
            groups[entry["group"]],
            "yes" if entry["default"] or (found["kind"] == "click" and entry["group"] == "recorded") else "",
        ]
        for entry in found["entries"]
    ]
    screen.say(table(rows, ["name", "what of", "by default"]) if rows else found["nothing"])
    return found


COMMAND = Command(
    name="models",
    summary="List the installed models, or show and check one.",
    example="  lksegment models\n  lksegment models lk_click\n  lksegment models lk_click --maps",
    configure=configure,
    run=run,
)
