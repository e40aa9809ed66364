"""Measured scores into a package, beside the weights they were measured with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from LKSegmentLib.packages.manifest import Manifest
from LKSegmentLib.packages.saving import jsonable, write
from LKSegmentLib.packages.store import locate, verified


def store_scores(source: str | os.PathLike[str], scores: Sequence[Mapping[str, Any]]) -> Path:
    """Replace the scores in a package's manifest; weights and everything else stay. Returns the package's path.

    Each score says what was measured, on which data and how, as JSON values.

    Raises:
        InputError: no such package, or one that is damaged. RunError: writing failed; the package is as it was.
    """
    path = locate(source)
    manifest, content = verified(path)
    values = jsonable({"scores": list(scores)}, f"The package {path}")["scores"]
    fresh: Manifest = replace(manifest, scores=tuple(values))
    write(path, fresh, content)
    return path
