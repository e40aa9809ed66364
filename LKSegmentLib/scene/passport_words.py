"""Passports in words: a line for the panel, a line an entry, a tooltip."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from LKSegmentLib.scene.translation import _


def about_entry(entry: Mapping[str, Any]) -> str:
    """What a thing is that a model can show, for its tooltip."""
    told = [str(entry.get(key, "")) for key in ("kind", "operator", "unit", "identifiable")]
    labels = (_("Kind"), _("Operator"), _("Unit"), _("Identifiable"))
    return "\n".join(f"{label}: {text}" for label, text in zip(labels, told, strict=True) if text)


def in_a_line(name: str, passport: Mapping[str, Any]) -> str:
    """Kind, unit, range, neutral value, size of a voxel, window on screen and whether it is identifiable."""
    parts = [str(passport.get(key, "")) for key in ("kind", "unit")]
    least, most = passport.get("range") or (None, None)
    if least is not None or most is not None:
        parts.append(f"{'...' if least is None else f'{least:g}'} to {'...' if most is None else f'{most:g}'}")
    if isinstance(passport.get("neutral"), (int, float)):
        parts.append(_("neutral {value:g}").format(value=passport["neutral"]))
    shown = passport.get("shown as")
    if isinstance(shown, dict) and shown.get("window"):
        low, high = shown["window"]
        parts.append(_("colours from {low:.3g} to {high:.3g}").format(low=low, high=high))
    if passport.get("identifiable"):
        first = re.split("[:;,.]", str(passport["identifiable"]))[0]  # the rest is in the passport
        parts.append(_("identifiable: {words}").format(words=first))
    words = passport.get("in words")
    return f"{name}: " + "; ".join(part for part in [*parts, str(words or "")] if part)


def in_words(value: object) -> str:
    """A value of a passport; long lists are cut."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {in_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(in_words(inner) for inner in value[:12]) + (", ..." if len(value) > 12 else "")
    return "-" if value is None else str(value)
