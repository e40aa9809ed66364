"""A trained click model → a model package that says how it was trained and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from LKSegmentLib import packages
from LKSegmentLib.prompts import CHANNELS
from LKSegmentLib.version import __version__

from .click_training import ClickTrainer


def export_package(
    trainer: ClickTrainer, folder: Path, scores: Sequence[Mapping[str, Any]] = (), overwrite: bool = False
) -> Path:
    """Write the averaged weights as fp16 safetensors with a manifest; the package's folder is returned.

    Raises:
        InputError: there is a package already and ``overwrite`` is False.
        RunError: writing failed; an earlier package is untouched.
    """
    recipe = trainer.recipe
    origin = recipe.started_from
    trained = (
        f"Synthetic volumes only: {trainer.scenes:,} random scenes of LKSegmentLib.training.synthetic "
        f"({trainer.steps:,} steps of {recipe.replicas * recipe.batch} windows, {trainer.seconds / 60:.0f} minutes on "
        f"{recipe.replicas} x {trainer.device.type}). No real image was used for training or for choosing the "
        "checkpoint."
    )
    if origin:
        before = origin["trained_on"] or "what those were trained on is not known."
        weights = origin["weights_sha256"][:12]
        trained = f"This training: {trained} It began with the weights {weights}. Theirs: {before}"
    return packages.save(
        folder,
        network="lk_click",
        state_dict=trainer.average.state_dict(),
        labels=[{"name": "structure"}],
        window=(recipe.windows[-1][1],) * 3,
        licence=origin.get("licence", "Apache-2.0"),
        intensity={"rule": "none"},
        options={"in_channels": len(CHANNELS), "out_channels": 1, **trainer.network.options},
        precision="float16",
        overwrite=overwrite,
        name="lk_click",
        title="LK Click",
        kind="click",
        output="regions",
        summary="Segments what you click on, in CT or MR, and corrects it with further clicks.",
        trained_on=trained,
        scores=[dict(score) for score in scores],
        prompts={
            "channels": list(CHANNELS),
            "normalisation": "each window by itself: median and deviation between the 2nd and 98th percentile, ±4",
        },
        citation=f"LKSegment {__version__}, lk_click",
        extra={
            "recipe": asdict(recipe),
            "steps": trainer.steps,
            "scenes": trainer.scenes,
            "intended_use": "Research. Not a medical device; a person checks every mask.",
        },
    )
