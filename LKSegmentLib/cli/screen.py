"""What a command prints: plain words or JSON on standard output, progress and trouble on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

#: progress(stage, fraction of this stage in 0..1)
Progress = Callable[[str, float], None]


class Screen:
    """Standard output stays clean for pipes: with `as_json` it carries one JSON document and nothing else."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def say(self, text: str = "") -> None:
        """A line for a person; nothing with `--json`."""
        if not self.as_json:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """A line about something that is not as expected but no failure, on standard error."""
        print(text, file=sys.stderr, flush=True)

    def finish(self, result: dict[str, Any]) -> None:
        """Print the result as JSON, if that was asked for. Numbers that JSON cannot hold become null."""
        if self.as_json:
            print(json.dumps(_plain(result), indent=2, allow_nan=False), flush=True)

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """A bar with the time left, on a terminal; elsewhere a callback that does nothing.

        Each stage fills the bar anew: stages take different times, so one common bar would mislead.
        """
        if not sys.stderr.isatty():
            yield lambda stage, fraction: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        # A descriptor of its own: what libraries print is held back at times, and the bar must go on.
        with (
            open(os.dup(sys.stderr.fileno()), "w", encoding="utf-8") as terminal,
            Progress(*columns, console=Console(file=terminal), transient=True) as bar,
        ):
            task = bar.add_task(title, total=None)
            shown: str | None = None

            def update(stage: str, fraction: float) -> None:
                nonlocal shown
                if stage != shown:
                    shown = stage
                    bar.reset(task, total=1.0, description=f"{title}: {stage}" if stage else title)
                bar.update(task, completed=min(max(fraction, 0.0), 1.0))

            yield update


def table(rows: list[list[str]], header: list[str]) -> str:
    """Columns aligned with spaces, the header underlined; no escape codes."""
    lines = [header, ["-" * len(name) for name in header], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _plain(value: Any) -> Any:
    """Turn numpy scalars, paths and the like into what JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
