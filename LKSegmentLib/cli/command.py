"""What a command is, and the parser they share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from LKSegmentLib.cli.screen import Screen


@dataclass(frozen=True)
class Command:
    """One command of `lksegment`.

    Attributes:
        name: the word after `lksegment`.
        summary: one line for the list of commands.
        example: shell lines for the end of `--help`.
        configure: adds the command's own arguments to its parser.
        run: does the work; says plain words through the screen and returns what `--json` prints.
    """

    name: str
    summary: str
    example: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Screen], dict[str, Any]]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one sentence (exit code 2), without the usage block."""

    def error(self, message: str) -> NoReturn:
        sentence = message[:1].upper() + message[1:].rstrip(".")
        self.exit(2, f"{sentence}. See {self.prog} --help.\n")


def example(text: str) -> dict[str, Any]:
    """Keyword arguments of a parser that ends its help with an example, line breaks kept."""
    return {"epilog": f"example:\n{text}", "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`, wherever it stands: a parser inside another one leaves what the outer one found."""
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document for machines"
    )
