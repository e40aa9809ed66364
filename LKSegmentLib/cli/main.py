"""Where the command starts and ends: parsing, exit codes, and one sentence for everything that goes wrong.

Exit codes: 0 done; 1 failed while running; 2 bad arguments or input; 130 stopped by Ctrl+C, 143 by a request to end.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import types
import warnings
from collections.abc import Sequence
from typing import TextIO

from LKSegmentLib.cli.arguments import joined
from LKSegmentLib.cli.command import Parser, add_json, example
from LKSegmentLib.cli.commands import COMMANDS
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.errors import Cancelled, InputError, LKSegmentError
from LKSegmentLib.version import __version__

TRACEBACK_VARIABLE = "LKSEGMENT_TRACEBACK"


class _Ended(Exception):
    """The process was asked to end (SIGTERM)."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `lksegment` with every command in it."""
    parser = Parser(
        prog="lksegment",
        description="Segmentation with large-kernel networks, and a look inside them.",
        **example(
            "  lksegment click ct.nii.gz --point 62,-20,85 -o liver.seg.nrrd\n"
            "  lksegment COMMAND --help"
        ),
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"lksegment {__version__}")
    commands = parser.add_subparsers(dest="command_name", metavar="COMMAND", required=True)
    for command in COMMANDS:
        of_command = commands.add_parser(
            command.name, help=command.summary, description=command.summary, **example(command.example)
        )
        command.configure(of_command)
        add_json(of_command)
        of_command.set_defaults(command=command)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    arguments = build_parser().parse_args(joined(sys.argv[1:] if words is None else words))
    screen = Screen(getattr(arguments, "json", False))
    try:
        screen.finish(arguments.command.run(arguments, screen))
        return 0
    except InputError as error:
        return _trouble(str(error), 2)
    except (Cancelled, KeyboardInterrupt):
        return _trouble("Stopped; nothing was left half-written.", 130)
    except _Ended:
        return _trouble("Ended on request; nothing was left half-written.", 143)
    except LKSegmentError as error:
        return _trouble(str(error), 1)
    except MemoryError:
        return _trouble("The memory of this machine was not enough; close other programs or use a smaller image.", 1)
    except BrokenPipeError:
        # The reader of our output has gone. Nothing more can be said; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def console() -> None:
    """The entry point of the installed command."""
    sys.excepthook = _unforeseen
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())


def _trouble(sentence: str, code: int) -> int:
    print(" ".join(sentence.split()), file=sys.stderr, flush=True)
    return code


def _end(number: int, frame: types.FrameType | None) -> None:
    raise _Ended


def _unforeseen(
    kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> None:
    """An error nobody planned for: still one sentence, and how to see where it came from. Python exits with 1."""
    if os.environ.get(TRACEBACK_VARIABLE):
        sys.__excepthook__(kind, error, trace)
        return
    _trouble(
        f"An unforeseen error stopped the command ({kind.__name__}: {error}). "
        f"Set {TRACEBACK_VARIABLE}=1 and run it again to see where, and please report it.",
        1,
    )


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Warnings meant for the person are plain sentences; those of libraries are for developers only."""
    if category.__module__.startswith("LKSegmentLib"):
        print(f"Note: {message}", file=file or sys.stderr, flush=True)


if __name__ == "__main__":
    console()
