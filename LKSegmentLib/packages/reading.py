"""Opening other programs' checkpoints. Tensors and plain values come out; code inside a file is never run.

Beside the trainer, which reopens its own files, this is the only place where `torch.load` is called, and always
with `weights_only=True`.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.official_keys import unwrap
from LKSegmentLib.packages.archive import BOMB_RATIO, LARGEST_FILE
from LKSegmentLib.packages.manifest import MANIFEST_FILE

# What torch.load and its unpickler raise for files that are damaged or of another kind.
LOADING_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    ImportError,
    struct.error,
    zipfile.BadZipFile,
)
REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
# Between these torch explains itself to programmers; what it found stands after the second one.
ADVICE = re.compile(r"^Weights only load failed.*?(?:WeightsUnpickler error:|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds. `tensors` are bare: no containers, no prefixes of wrappers.

    `init_args` are the trainer's arguments in a checkpoint of nnU-Net v2 (plans, dataset_json, configuration).
    """

    path: Path
    tensors: dict[str, Tensor]
    init_args: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path, entry: str | None = None) -> Checkpoint:
    """Read a .pt, .pth or .safetensors file onto the CPU.

    path     the file; its content decides how it is read, not its name
    entry    which weights to take where the file holds several sets, such as "average"

    Raises InputError, one sentence, when the file is missing, damaged, of another kind, or holds code or no weights.
    """
    start = opening_bytes(path)
    if looks_like_safetensors(path, start):
        loaded: Any = read_safetensors(path)
    else:
        refuse_other_kinds(path, start)
        loaded = read_pickled(path)
    tensors = weights_in(loaded, path, entry)
    refuse_unusual(tensors, path)
    init_args = loaded.get("init_args") if isinstance(loaded, Mapping) else None
    return Checkpoint(path, tensors, init_args if isinstance(init_args, Mapping) else {})


def opening_bytes(path: Path) -> bytes:
    """Return the first bytes of an ordinary file. InputError when there is none."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the checkpoint file in it, for example checkpoint_final.pth.")
    try:
        with open(path, "rb") as stream:
            return stream.read(512)
    except FileNotFoundError as error:
        raise InputError(f"There is no checkpoint at {path}: check the path.") from error
    except OSError as error:
        raise InputError(f"The checkpoint {path} cannot be read ({error.strerror}): check its permissions.") from error


def looks_like_safetensors(path: Path, start: bytes) -> bool:
    """Whether the file begins with the length of a JSON header and the header, or is named so and nothing else."""
    named = path.suffix.lower() == ".safetensors" and not start.startswith((b"PK", b"\x80"))
    return named or (start[8:9] == b"{" and start[4:8] == b"\0\0\0\0")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file."""
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a complete safetensors file ({first_line(error)}): get it anew.") from error


def refuse_other_kinds(path: Path, start: bytes) -> None:
    """InputError for a file that is no checkpoint of PyTorch, with what it is where that can be told."""
    if not start:
        raise InputError(f"{path} is empty: get the checkpoint anew.")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is only a Git LFS pointer: fetch the checkpoint itself with git lfs pull.")
    if start.lstrip()[:1] == b"<":
        raise InputError(f"{path} is a web page and not a checkpoint: download the file itself.")
    if start.startswith(b"PK"):
        refuse_other_archives(path)
    elif start[:1] != b"\x80":
        raise InputError(f"{path} is not a checkpoint: give a .pt or .pth file of PyTorch, or a .safetensors file.")


def refuse_other_archives(path: Path) -> None:
    """InputError for a zip that is cut off or not one that torch.save wrote."""
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is cut off, its end is missing: get the checkpoint anew.")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({first_line(error)}): get the checkpoint anew.") from error
    names = [info.filename for info in infos]
    if any(name == MANIFEST_FILE or name.endswith(f"/{MANIFEST_FILE}") for name in names):
        raise InputError(f"{path} is a model package already: put it into the model folder, nothing is to be imported.")
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise InputError(
            f"{path} is a TorchScript archive, a program and not only weights: save the original network's "
            "state_dict() with torch.save instead."
        )
    if not any(name.endswith("/data.pkl") for name in names):
        raise InputError(f"{path} is a zip file but not a checkpoint of torch.save: give the checkpoint itself.")
    if sum(info.file_size for info in infos) > BOMB_RATIO * max(1, path.stat().st_size):
        raise InputError(f"{path} unpacks to an absurd size: this is no checkpoint.")


def read_pickled(path: Path) -> Any:
    """Return the content of a file of torch.save, current or legacy."""
    try:
        # An open file, because torch.load would go by the name of a path.
        with open(path, "rb") as stream, torch.serialization.safe_globals(harmless_numpy_types()):
            return torch.load(stream, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise InputError(f"{path} asks for more memory than this machine has: it is damaged or too large.") from error
    except LOADING_ERRORS as error:
        refuse_loading(path, error)


def harmless_numpy_types() -> list[Any]:
    """Return numpy's numbers and arrays of numbers, which nnU-Net v2 puts beside the weights (its training log).

    Only these types are let through, so arrays of Python objects are still refused.
    """
    from numpy._core import multiarray  # type: ignore[attr-defined,unused-ignore]

    kinds = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
    allowed: list[Any] = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]
    for module in ("numpy._core.multiarray", "numpy.core.multiarray"):  # numpy 2 and numpy 1 write different names
        allowed += [(multiarray.scalar, f"{module}.scalar"), (multiarray._reconstruct, f"{module}._reconstruct")]
    return allowed


def refuse_loading(path: Path, error: Exception) -> NoReturn:
    """Raise InputError: why torch.load refused the file."""
    text = str(error)
    refused = REFUSED_GLOBAL.search(text)
    if refused is not None:
        raise InputError(
            f'{path} holds more than weights: opening it would run Python code ("{refused[1]}"), which LKSegment '
            "never does; where you trust the file, load it in its own program and save only network.state_dict()."
        ) from error
    if isinstance(error, EOFError) or "PytorchStreamReader" in text or "unexpected EOF" in text or "truncated" in text:
        raise InputError(f"{path} is cut off or damaged: get the checkpoint anew.") from error
    raise InputError(
        f"{path} is not a checkpoint that torch.save wrote ({first_line(error)}): it is damaged or of another kind."
    ) from error


def weights_in(loaded: Any, path: Path, entry: str | None) -> dict[str, Tensor]:
    """Return the bare tensors in what a file holds, whatever wraps them."""
    if not isinstance(loaded, Mapping):
        raise InputError(
            f"{path} holds a {type(loaded).__name__} and no state dict: save network.state_dict() with torch.save."
        )
    if entry is not None:
        if not isinstance(loaded.get(entry), Mapping):
            held = ", ".join(str(key) for key in loaded)
            raise InputError(f'{path} has no set of weights called "{entry}": it holds {held:.200}.')
        return unwrap(loaded[entry])
    try:
        return unwrap(loaded)
    except InputError as error:
        sets = [str(key) for key, value in loaded.items() if is_state_dict(value)]
        if len(sets) == 1:
            return unwrap(loaded[sets[0]])
        if sets:
            raise InputError(
                f"{path} holds several sets of weights ({', '.join(sets)}): choose one with --entry."
            ) from error
        if "param_groups" in loaded or any("optim" in str(key).lower() for key in loaded):
            raise InputError(
                f"{path} holds the state of an optimizer and no weights: give the file with the network's weights."
            ) from error
        if not any(isinstance(value, Tensor) for value in loaded.values()):
            raise InputError(
                f"{path} holds no state dict at its top (it holds {', '.join(map(str, loaded)) or 'nothing':.200}): "
                "save network.state_dict() with torch.save."
            ) from error
        raise InputError(f"{path} cannot be imported: {error}") from error


def is_state_dict(value: Any) -> bool:
    """Whether `value` maps names to tensors, at least one of them a matrix or more."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    tensors = [inner for inner in value.values() if isinstance(inner, (Tensor, np.ndarray))]
    return len(tensors) == len(value) and any(tensor.ndim >= 2 for tensor in tensors)


def refuse_unusual(tensors: Mapping[str, Tensor], path: Path) -> None:
    """InputError for tensors that are no plain arrays of real numbers, or larger than any package may be."""
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            raise InputError(
                f'"{name}" in {path} is a sparse, quantised, complex or empty tensor: save the network in float32.'
            )
    # Counted by shape: a tensor of one stored value can claim any shape.
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > LARGEST_FILE:
        raise InputError(f"The weights in {path} exceed {LARGEST_FILE / 2**30:.0f} GiB, the most a package holds.")


def first_line(error: BaseException) -> str:
    """Return the beginning of an error's text without its closing point."""
    lines = ADVICE.sub("", str(error)).strip().splitlines() or ["it cannot be read"]
    return lines[0].strip()[:160].rstrip(".: ")
