"""Running `lksegment` as a person does: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from LKSegmentLib.volumes import Volume, write_volume

COMMAND = [sys.executable, "-c", "from LKSegmentLib.cli.main import console; console()"]


def lksegment(*words: str | Path, timeout: float = 600, **options: Any) -> subprocess.CompletedProcess[str]:
    """The finished process; standard output and error are text."""
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=timeout, **options
    )


def json_of(*words: str | Path, **options: Any) -> Any:
    """What the command prints with --json; it must succeed."""
    done = lksegment(*words, "--json", **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sentence_of(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one sentence of a command that failed with this code and printed nothing else."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].endswith("."), done.stderr
    assert "Traceback" not in lines[0] and "\x1b" not in lines[0]
    return lines[0]


def blob_image(path: Path, size: int = 40, dtype: str = "int16") -> Path:
    """An image with one bright ball in the middle, RAS origin in its centre, 2 mm voxels."""
    axis = np.arange(size) - (size - 1) / 2
    distance = np.sqrt(sum(values**2 for values in np.meshgrid(axis, axis, axis, indexing="ij")))
    noise = np.random.default_rng(0).normal(0, 8, distance.shape)
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    matrix[:3, 3] = -(size - 1)
    write_volume(Volume((np.where(distance < size / 4, 120, -60) + noise).astype(dtype), matrix), path)
    return path


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with some changes."""
    return {**os.environ, **changes}
