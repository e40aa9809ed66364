"""Typed reading of JSON values. Whatever is wrong becomes one sentence that names the place and the remedy.

Written by hand and not with a schema library because the catalogue is read inside Slicer's own Python,
which must need nothing beyond numpy (see docs/decisions/model-packages.md).
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn, TypeGuard

from LKSegmentLib.errors import InputError

LONGEST_TEXT = 20_000


def no_constant(text: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's reader would accept although JSON has no such numbers."""
    raise ValueError(f"{text} is not a JSON number")


def parse_json(text: str | bytes, where: str) -> Any:
    """Return the value of a JSON text. InputError when it is not JSON, or nested beyond reason."""
    try:
        return json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON ({error}): write it again or get the package anew.") from error


def plain(value: Any, where: str) -> Any:
    """Return `value` with tuples as lists, after checking that JSON can hold it exactly."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            raise InputError(f"{where} holds {value}, which JSON cannot store: give a finite number.")
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise InputError(f"{where} has a key that is not text: JSON allows text keys only.")
        return {key: plain(inner, f"{where}, {key}") for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(inner, where) for inner in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist(), where)
    raise InputError(f"{where} holds a {type(value).__name__}, which JSON cannot store: give text, numbers or lists.")


class Fields:
    """A JSON object being read. `where` names it in messages, for example "The manifest of package x, label 3"."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, Mapping):
            raise InputError(f"{where} must be an object with named fields, not {described(values)}.")
        self.values: Mapping[str, Any] = values
        self.where = where

    def wrong(self, key: str, wanted: str) -> NoReturn:
        """Raise InputError: the field `key` is not `wanted`."""
        got = described(self.values[key]) if key in self.values else "nothing"
        raise InputError(f'{self.where}: "{key}" must be {wanted}, not {got}.')

    def only(self, known: Collection[str]) -> None:
        """InputError when a field is not among `known`: a misspelt name must not pass for a default."""
        unknown = sorted(str(key) for key in self.values if key not in known)
        if unknown:
            raise InputError(
                f'{self.where} has the unknown field "{unknown[0][:60]}": the fields are {", ".join(sorted(known))}.'
            )

    def has(self, key: str) -> bool:
        """Whether the field is present and not null."""
        return self.values.get(key) is not None

    def text(self, key: str, default: str | None = None, longest: int = LONGEST_TEXT) -> str:
        """Return a text field; required when `default` is None."""
        if not self.has(key) and default is not None:
            return default
        value = self.values.get(key)
        if not isinstance(value, str) or (default is None and not value.strip()):
            self.wrong(key, "a text")
        if len(value) > longest:
            self.wrong(key, f"a text of at most {longest} characters")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """Return a text field that is one of `choices`."""
        value = self.text(key, default)
        if value not in choices:
            self.wrong(key, "one of " + ", ".join(f'"{choice}"' for choice in choices))
        return value

    def number(self, key: str, lowest: float, highest: float, default: float | None = None) -> float:
        """Return a finite number within [lowest, highest]."""
        if not self.has(key) and default is not None:
            return default
        value = self.values.get(key)
        if not is_number(value) or not lowest <= value <= highest:
            self.wrong(key, f"a number from {lowest:g} to {highest:g}")
        return float(value)

    def whole(self, key: str, lowest: int, highest: int, default: int | None = None) -> int:
        """Return a whole number within [lowest, highest]."""
        if not self.has(key) and default is not None:
            return default
        value = self.values.get(key)
        if not is_whole(value) or not lowest <= value <= highest:
            self.wrong(key, f"a whole number from {lowest} to {highest}")
        return int(value)

    def numbers(self, key: str, count: int, lowest: float, highest: float) -> tuple[float, ...]:
        """Return a list of exactly `count` finite numbers within [lowest, highest]."""
        value = self.values.get(key)
        good = isinstance(value, (list, tuple)) and len(value) == count
        if not good or not all(is_number(item) and lowest <= item <= highest for item in value or ()):
            self.wrong(key, f"a list of {count} numbers from {lowest:g} to {highest:g}")
        return tuple(float(item) for item in value or ())

    def wholes(self, key: str, count: int, lowest: int, highest: int) -> tuple[int, ...]:
        """Return a list of exactly `count` whole numbers within [lowest, highest]."""
        value = self.values.get(key)
        good = isinstance(value, (list, tuple)) and len(value) == count
        if not good or not all(is_whole(item) and lowest <= item <= highest for item in value or ()):
            self.wrong(key, f"a list of {count} whole numbers from {lowest} to {highest}")
        return tuple(int(item) for item in value or ())

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.wrong(key, "true or false")
        return value

    def items(self, key: str, most: int, required: bool = False) -> list[Any]:
        """Return a list of at most `most` values; empty when absent and not required."""
        value = self.values.get(key)
        if value is None and not required:
            return []
        if not isinstance(value, (list, tuple)) or len(value) > most or (required and not value):
            self.wrong(key, f"a list of {1 if required else 0} to {most} values")
        return list(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object field; empty when absent."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.wrong(key, "an object with named fields")
        checked: dict[str, Any] = plain(value, f'{self.where}, "{key}"')
        return checked


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite number (true and false are not numbers)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether `value` is a whole number (true and false are not numbers)."""
    return isinstance(value, int) and not isinstance(value, bool)


def described(value: Any) -> str:
    """Return a short text for a value in a message."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if len(value) > 6 else f"the list {list(value)!r}"[:80]
    return repr(value)[:80]
