"""How faithful a network's maps are, measured once and kept in the package beside the weights it was measured with.

`lksegment evaluate maps --store` writes it. Reading needs the standard library only: the panel shows the sentence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from LKSegmentLib.packages.manifest import WEIGHTS_FILE, Manifest, manifest_from
from LKSegmentLib.packages.saving import jsonable, write
from LKSegmentLib.packages.store import locate, verified


def faithfulness_of(manifest: Manifest, map_name: str) -> str | None:
    """The sentence that says what a map is worth, and on what that was measured.

    None when the map was not measured with these weights; "NAME #5" is another map than "NAME".
    """
    entry = manifest.faithfulness.get(map_name)
    if entry is None or entry["weights"] != manifest.files[WEIGHTS_FILE].sha256:
        return None
    return f"{entry['sentence']} (Measured on {entry['data']}.)"


def store_faithfulness(source: str | os.PathLike[str], entries: Mapping[str, Mapping[str, Any]]) -> Path:
    """Put `entries` (map to sentence, scores, data, weights) into a package. Returns the package's path.

    What is there of other maps stays, if it was measured with the package's weights; weights and everything else stay.

    Raises:
        InputError: no such package, one that is damaged, or an entry that is wrong. RunError: writing failed; the
            package is as it was.
    """
    path = locate(source)
    manifest, content = verified(path)
    digest = manifest.files[WEIGHTS_FILE].sha256
    kept = {name: entry for name, entry in manifest.faithfulness.items() if entry["weights"] == digest}
    values = jsonable({**manifest.to_json(), "faithfulness": {**kept, **entries}}, f"The package {path}")
    fresh = replace(manifest, faithfulness=manifest_from(values, f"The package {path}").faithfulness)
    write(path, fresh, content)
    return path
