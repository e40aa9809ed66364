"""The messages between client and worker: framing, what each message may carry, and the checks on both ends.

docs/protocol.md is the specification; this file is its only implementation. A frame is a fixed 16-byte header,
one JSON object in UTF-8 and, for arrays that travel on the wire, their raw bytes. No message carries code,
pickled objects or the path of a file to open, with one exception: ``model`` may be a folder or zip named by
the same user on the same machine.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from LKSegmentLib.errors import RunError

PROTOCOL_VERSION: Final = 2
"""Raised by one whenever a message changes. Client and worker must agree exactly."""

MAGIC: Final = b"LKSG"
HEADER: Final = struct.Struct("<4sIQ")
"""magic, length of the JSON text in bytes, length of the array bytes after it; little endian. Never changes."""

MAX_JSON_BYTES: Final = 1 << 24
"""16 MiB. The largest honest messages: the 4096 labels a package may have, at about 500 bytes, or a list of models."""
MAX_PAYLOAD_BYTES: Final = 1 << 34
"""16 GiB: a float32 image of 1024 x 1024 x 1024 voxels and 4 channels."""
MAX_ARRAYS: Final = 256
MAX_DIMENSIONS: Final = 5
MAX_POINTS: Final = 4096
MAX_TEXT: Final = 4096
MAX_LAYERS: Final = (MAX_ARRAYS - 1) // 2
"""Maps asked for at once: each may come with the disagreement of its windows; both are arrays, as the answer is."""

DTYPES: Final = ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")
"""numpy type strings that may travel; big-endian arrays are converted before they are sent."""

BLOCK_NAME: Final = re.compile(r"lks_[0-9]{1,10}_[0-9a-f]{8}_[cw][0-9]{1,12}")
SESSION: Final = re.compile(r"lks_[0-9]{1,10}_[0-9a-f]{8}")

Side = Literal["client", "worker"]
Message = dict[str, Any]
Check = Callable[[object], str]
"""Returns what was expected, in words, or an empty text when the value is right."""


class ProtocolError(RunError):
    """What arrived is not a message of this protocol."""


def _whole_number(largest: int) -> Check:
    def check(value: object) -> str:
        good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest
        return "" if good else f"a whole number from 0 to {largest}"

    return check


def _text(longest: int = MAX_TEXT, pattern: re.Pattern[str] | None = None) -> Check:
    def check(value: object) -> str:
        if not isinstance(value, str) or len(value) > longest:
            return f"a text of at most {longest} characters"
        if pattern is not None and not pattern.fullmatch(value):
            return f"a text of the form {pattern.pattern}"
        return ""

    return check


def _word(*allowed: str) -> Check:
    return lambda value: "" if value in allowed else "one of " + ", ".join(allowed)


def _flag(value: object) -> str:
    return "" if isinstance(value, bool) else "true or false"


def _number(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return good and math.isfinite(value) and least <= value <= most  # type: ignore[arg-type, operator]


def _fraction(value: object) -> str:
    return "" if _number(value, 0.0, 1.0) else "a number from 0 to 1"


def _matrix(value: object) -> str:
    good = isinstance(value, list) and len(value) == 16 and all(_number(v) for v in value)
    return "" if good else "16 finite numbers, the IJK to RAS matrix row by row"


def _points(value: object) -> str:
    expected = (
        f"at most {MAX_POINTS} points, each [r, a, s, positive] or [r, a, s, positive, with next] with finite "
        "millimetres and true or false"
    )
    if not isinstance(value, list) or len(value) > MAX_POINTS:
        return expected
    for point in value:
        if not (isinstance(point, list) and len(point) in (4, 5) and all(_number(v) for v in point[:3])):
            return expected
        if not all(isinstance(v, bool) for v in point[3:]):
            return expected
    return ""


def _place(value: object) -> str:
    good = isinstance(value, list) and len(value) == 3 and all(_number(v) for v in value)
    return "" if value is None or good else "a place [r, a, s] in finite millimetres, or null"


def _layers(value: object) -> str:
    good = isinstance(value, list) and len(value) <= MAX_LAYERS and not any(_text(200)(name) for name in value)
    return "" if value is None or good else f"at most {MAX_LAYERS} names of at most 200 characters, or null"


def _label(value: object) -> str:
    return "" if value is None or not _whole_number(65535)(value) else "a whole number from 0 to 65535, or null"


def _radius(value: object) -> str:
    return "" if value is None or _number(value, 0.0, 1e4) else "a radius from 0 to 10000 mm, or null"


def _names(value: object) -> str:
    good = isinstance(value, list) and all(isinstance(n, str) and BLOCK_NAME.fullmatch(n) for n in value)
    return "" if good else "a list of names of shared-memory blocks"


def _texts(value: object) -> str:
    good = isinstance(value, list) and len(value) <= 20 and not any(_text()(text) for text in value)
    return "" if good else f"at most 20 texts of at most {MAX_TEXT} characters"


def _object(value: object) -> str:
    return "" if isinstance(value, dict) else "a JSON object"


def _version(value: object) -> str:
    return "" if value is None or not _text(100)(value) else "a version as text, or null"


def _arrays(value: object) -> str:
    if not isinstance(value, list) or len(value) > MAX_ARRAYS:
        return f"at most {MAX_ARRAYS} array descriptors"
    total = 0
    for descriptor in value:
        wrong = _descriptor(descriptor)
        if wrong:
            return wrong
        total += array_bytes(descriptor)
    return "" if total <= MAX_PAYLOAD_BYTES else f"arrays of at most {MAX_PAYLOAD_BYTES} bytes together"


def _descriptor(value: object) -> str:
    if not isinstance(value, dict):
        return "array descriptors that are JSON objects"
    carrier = value.get("carrier")
    if set(value) != {"carrier", "dtype", "shape"} | ({"name"} if carrier == "shared" else set()):
        return "array descriptors with carrier, dtype, shape and, for shared memory, name"
    if carrier not in ("shared", "wire"):
        return "array descriptors whose carrier is shared or wire"
    if carrier == "shared" and _text(64, BLOCK_NAME)(value["name"]):
        return "array descriptors whose name is that of a shared-memory block"
    if value["dtype"] not in DTYPES:
        return "array descriptors whose dtype is one of " + ", ".join(DTYPES)
    shape = value["shape"]
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        return f"array descriptors whose shape is a list of at most {MAX_DIMENSIONS} lengths"
    if any(_whole_number(1 << 34)(length) for length in shape):
        return "array descriptors whose shape holds whole numbers"
    return ""


def array_bytes(descriptor: Mapping[str, Any]) -> int:
    """Bytes of the array that a checked descriptor announces."""
    return int(math.prod(descriptor["shape"])) * int(descriptor["dtype"][2:])


_identifier = _whole_number((1 << 53) - 1)  # what every JSON reader keeps exactly

FIELDS: Final[Mapping[Side, Mapping[str, Mapping[str, Check]]]] = {
    "client": {
        "hello": {
            "protocol": _whole_number(1 << 31),
            "library": _text(100),
            "session": _text(64, SESSION),
            "carrier": _word("shared", "wire"),
        },
        "open_image": {"image": _identifier, "ijk_to_ras": _matrix, "arrays": _arrays},
        "close_image": {"image": _identifier},
        "segment": {"job": _identifier, "image": _identifier, "model": _text(), "device": _text(64)},
        "click": {
            "job": _identifier,
            "image": _identifier,
            "model": _text(),
            "device": _text(64),
            "points": _points,
            "maps": _flag,
        },
        "exposed": {"job": _identifier, "model": _text()},
        "inspect": {
            "job": _identifier,
            "image": _identifier,
            "model": _text(),
            "device": _text(64),
            "points": _points,
            "layers": _layers,
        },
        "reach": {
            "job": _identifier,
            "image": _identifier,
            "model": _text(),
            "device": _text(64),
            "points": _points,
            "ras": _place,
            "label": _label,
            "around_mm": _radius,
        },
        "models": {"job": _identifier},
        "doctor": {"job": _identifier},
        "cancel": {"job": _identifier},
        "received": {"names": _names},
        "goodbye": {},
    },
    "worker": {
        "welcome": {
            "protocol": _whole_number(1 << 31),
            "library": _text(100),
            "python": _text(100),
            "torch": _version,
            "numpy": _version,
            "process": _whole_number(1 << 31),
            "interpreter": _text(),
        },
        "refused": {"sentence": _text()},
        "plan": {"job": _identifier, "sentence": _text()},
        "progress": {"job": _identifier, "stage": _text(200), "fraction": _fraction},
        "done": {"job": _identifier, "result": _object, "warnings": _texts, "arrays": _arrays},
        "failed": {"job": _identifier, "category": _word("input", "run"), "sentence": _text()},
        "cancelled": {"job": _identifier},
        "fault": {"sentence": _text()},
        "received": {"names": _names},
    },
}
"""Who may send which message, and the check for each field. Every field is required and no other is allowed."""

HANDSHAKE: Final = frozenset({"hello", "welcome", "refused"})
"""Messages that may carry more fields than known here, so that versions that differ still understand the refusal."""


def checked(message: object, sender: Side) -> Message:
    """The message itself, when ``sender`` may send it and every field is as docs/protocol.md says.

    Raises ProtocolError, with a sentence that names the message and the field, when it is not.
    """
    if not isinstance(message, dict):
        raise ProtocolError(f"The {sender} sent JSON that is not an object.")
    kind = message.get("type")
    fields = FIELDS[sender].get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ProtocolError(f"The {sender} sent the unknown message {str(kind)[:60]!r}.")
    for name, check in fields.items():
        if name not in message:
            raise ProtocolError(f"The message {kind!r} from the {sender} lacks the field {name!r}.")
        expected = check(message[name])
        if expected:
            shown = repr(message[name])[:60]
            raise ProtocolError(f"The message {kind!r} from the {sender} has {name} = {shown}; it must be {expected}.")
    unknown = set(message) - set(fields) - {"type"}
    if unknown and kind not in HANDSHAKE:
        raise ProtocolError(f"The message {kind!r} from the {sender} has the unknown field {min(unknown)[:60]!r}.")
    return message


def packed(message: Message, sender: Side, payload_bytes: int = 0) -> bytes:
    """Header and JSON text of a message that ``sender`` is about to send, checked first.

    Raises ProtocolError when the message is not one of this protocol or too large.
    """
    checked(message, sender)
    try:
        text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (TypeError, ValueError) as error:
        kind = message["type"]
        raise ProtocolError(f"The message {kind!r} holds a value that JSON cannot carry: {error}.") from error
    check_lengths(len(text), payload_bytes)
    return HEADER.pack(MAGIC, len(text), payload_bytes) + text


def unpacked_header(header: bytes) -> tuple[int, int]:
    """(JSON bytes, array bytes) announced by a 16-byte header. Raises ProtocolError for anything else."""
    magic, json_bytes, payload_bytes = HEADER.unpack(header)
    if magic != MAGIC:
        raise ProtocolError("Bytes arrived that do not begin with a message header; the connection is not usable.")
    check_lengths(json_bytes, payload_bytes)
    return json_bytes, payload_bytes


def check_lengths(json_bytes: int, payload_bytes: int) -> None:
    """Raises ProtocolError for a message larger than the protocol allows."""
    if json_bytes > MAX_JSON_BYTES:
        raise ProtocolError(f"A message of {json_bytes} bytes of text is larger than the {MAX_JSON_BYTES} allowed.")
    if payload_bytes > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"Arrays of {payload_bytes} bytes are larger than the {MAX_PAYLOAD_BYTES} allowed.")


def unpacked_text(text: bytes) -> object:
    """The JSON value in ``text``. Raises ProtocolError when it is not JSON in UTF-8 or holds NaN or Infinity."""

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"A message arrived whose text is not JSON in UTF-8: {error}.") from error
