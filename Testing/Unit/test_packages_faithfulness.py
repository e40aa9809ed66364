"""What a map is worth, kept in the package: read with the standard library, and never shown for other weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_packages_manifest import GOOD
from test_packages_store import save, tiny

from LKSegmentLib import packages
from LKSegmentLib.errors import InputError
from LKSegmentLib.packages.manifest import manifest_from

HASH = "0" * 64


def entry(sentence: str = "It is decoration.", weights: str = HASH) -> dict[str, Any]:
    scores = {"this map": {"probability": 0.1}}
    return {"sentence": sentence, "scores": scores, "data": "2 places of one image", "weights": weights}


def test_the_sentence_is_read_from_the_manifest_with_what_it_was_measured_on() -> None:
    manifest = manifest_from({**GOOD, "faithfulness": {"gate": entry()}}, "The manifest")
    assert packages.faithfulness_of(manifest, "gate") == "It is decoration. (Measured on 2 places of one image.)"
    assert packages.faithfulness_of(manifest, "gate #5") is None, "a channel is another map than the mean"
    assert packages.faithfulness_of(manifest_from(GOOD, "The manifest"), "gate") is None
    again = manifest_from(json.loads(json.dumps(manifest.to_json())), "The manifest")
    assert again == manifest


def test_scores_of_other_weights_are_not_shown() -> None:
    manifest = manifest_from({**GOOD, "faithfulness": {"gate": entry(weights="1" * 64)}}, "The manifest")
    assert packages.faithfulness_of(manifest, "gate") is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"gate": {**entry(), "weights": "abc"}}, "64 hexadecimal digits"),
        ({"gate": {**entry(), "sentence": " "}}, '"sentence" must be a text'),
        ({"gate": {**entry(), "when": "today"}}, 'unknown field "when"'),
        ({"gate": "good"}, "must be an object"),
    ],
)
def test_a_wrong_entry_is_a_sentence_that_names_the_map(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match="gate") as found:
        manifest_from({**GOOD, "faithfulness": wrong}, "The manifest")
    assert words in str(found.value)


def test_storing_keeps_weights_and_the_other_maps_and_drops_those_of_other_weights(tmp_path: Path) -> None:
    path = save(tmp_path / "model")
    digest = packages.read_manifest(path).files["weights.safetensors"].sha256
    content = (path / "weights.safetensors").read_bytes()
    assert packages.store_faithfulness(path, {"gate": entry(weights=digest), "old": entry()}) == path
    packages.store_faithfulness(path, {"attention": entry("It is worth something.", digest)})
    manifest = packages.read_manifest(path)
    assert set(manifest.faithfulness) == {"gate", "attention"}
    assert (packages.faithfulness_of(manifest, "attention") or "").startswith("It is worth something.")
    assert (path / "weights.safetensors").read_bytes() == content
    packages.verify(path)
    packages.store_scores(path, [{"measured": "Dice", "value": 0.5}])
    assert set(packages.read_manifest(path).faithfulness) == {"gate", "attention"}, "other scores leave them alone"
    with pytest.raises(InputError, match="64 hexadecimal"):
        packages.store_faithfulness(path, {"gate": entry(weights="none")})
    # New weights at the same place: what was measured with the old ones is gone.
    save(path, tiny(seed=1), overwrite=True)
    assert not packages.read_manifest(path).faithfulness
