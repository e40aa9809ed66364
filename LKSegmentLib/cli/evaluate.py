"""`lksegment evaluate`: how good a click model is, click after click, and what the maps of a model are worth."""

from __future__ import annotations

import argparse
from typing import Any

from LKSegmentLib.cli import evaluate_click, evaluate_maps
from LKSegmentLib.cli.command import Command, Parser
from LKSegmentLib.cli.screen import Screen


def configure(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True, parser_class=Parser)
    evaluate_click.configure(kinds)
    evaluate_maps.configure(kinds)


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    return (evaluate_maps if arguments.what == "maps" else evaluate_click).run(arguments, screen)


COMMAND = Command(
    name="evaluate",
    summary="Measure a model on labelled images, or what its maps are worth.",
    example=f"{evaluate_click.EXAMPLE}\n{evaluate_maps.EXAMPLE}",
    configure=configure,
    run=run,
)
