"""What a network checks before it builds or runs, so that every refusal is one sentence with the way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from LKSegmentLib.errors import InputError


def one_of(option: str, value: Any, choices: Any) -> Any:
    """Return `value` if it is one of `choices` (a tuple, or a `typing.Literal`).

    Raises:
        InputError: it is not; the sentence names the values that are allowed.
    """
    allowed = get_args(choices) or tuple(choices)
    if value not in allowed or (isinstance(value, bool) and not any(choice is value for choice in allowed)):
        listed = ", ".join(repr(choice) for choice in allowed)
        raise InputError(f"{option}={value!r} is not allowed. Choose one of: {listed}.")
    return value


def switch(option: str, value: Any) -> bool:
    """Return `value` if it is True or False; a word such as "no" would silently count as true.

    Raises:
        InputError: it is neither.
    """
    if not isinstance(value, bool):
        raise InputError(f"{option}={value!r} is not allowed. Choose one of: True, False.")
    return value


def whole(option: str, value: Any, minimum: int = 1, multiple: int = 1, odd: bool = False) -> int:
    """Return `value` as a whole number that is at least `minimum`, a multiple of `multiple`, and odd if
    asked.

    Raises:
        InputError: it is not; the sentence says what is needed.
    """
    wanted = f"a whole number of at least {minimum}"
    if multiple > 1:
        wanted += f" and a multiple of {multiple}"
    if odd:
        wanted += " and odd"
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < minimum or value % multiple or (odd and value % 2 == 0):
        raise InputError(f"{option}={value!r} is not allowed. Use {wanted}.")
    return int(value)


def fraction(option: str, value: Any) -> float:
    """Return `value` as a number of at least 0 and below 1 (a drop rate).

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise InputError(f"{option}={value!r} is not allowed. Use a number of at least 0 and below 1.")
    return float(value)


def number(option: str, value: Any, minimum: float = 0.0) -> float:
    """Return `value` as a finite number of at least `minimum`.

    Raises:
        InputError: it is not.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not minimum <= value < float("inf"):
        raise InputError(f"{option}={value!r} is not allowed. Use a number of at least {minimum:g}.")
    return float(value)


def whole_list(
    option: str, values: Any, length: int | None = None, minimum: int = 1, multiple: int = 1
) -> tuple[int, ...]:
    """Return `values` as a tuple of whole numbers, each as `whole` asks, `length` of them if given.

    Raises:
        InputError: it is no list, has another length, or holds a number that is not allowed.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise InputError(f"{option}={values!r} is not allowed. Use a list of whole numbers.")
    if length is not None and len(values) != length:
        raise InputError(f"{option}={values!r} has {len(values)} entries. Give {length}, one for each level.")
    return tuple(whole(f"{option}[{n}]", value, minimum, multiple) for n, value in enumerate(values))


def check_input(
    network: str, shape: Sequence[int], channels: int, multiple: int, minimum: int, thinnest: int | None = None
) -> None:
    """Refuse an input tensor shape that `network` cannot take.

    Args:
        network: its name in sentences.
        shape: of the input, (batch, channel, k, j, i).
        channels: the input channels that the network was built for.
        multiple: each spatial size must be a multiple of it.
        minimum: the smallest spatial size.
        thinnest: the smallest size that will do along two axes while the third is at least `minimum`, for networks
            whose deepest map needs more than one voxel, whichever way they lie.

    Raises:
        InputError: with the sizes that would do.
    """
    if len(shape) != 5:
        raise InputError(
            f"{network} takes a tensor (batch, channel, k, j, i); this one has {len(shape)} axes."
        )
    if shape[1] != channels:
        raise InputError(
            f"{network} was built for in_channels={channels}; this input has {shape[1]} channels."
        )
    sizes = tuple(int(size) for size in shape[2:])
    least = minimum if thinnest is None or max(sizes) < minimum else thinnest
    if any(size < least or size % multiple for size in sizes):
        fitting = tuple(max(minimum, -(-size // multiple) * multiple) for size in sizes)
        if multiple > 1:
            need = f"multiples of {multiple}, at least {minimum}"
        else:
            need = f"at least {minimum}"
        raise InputError(
            f"{network} cannot take the size {_times(sizes)}: each size must be {need}. "
            f"Pad the input to {_times(fitting)} and crop the result."
        )


def _times(sizes: Sequence[int]) -> str:
    return "×".join(str(size) for size in sizes)
