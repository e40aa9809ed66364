"""Sentences for what goes wrong around a network: memory, missing packages, device faults, a dead worker.

Needs no torch: its errors are known by their class names and texts.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from LKSegmentLib.errors import InputError, LKSegmentError, RunError

EXIT_CANNOT_START: Final = 3
"""The worker printed, as its last line, why it cannot work here."""
EXIT_UNEXPECTED: Final = 70
"""An error nobody foresaw; its traceback is on stderr."""
EXIT_DEVICE_FAULT: Final = 75
"""The device must not be used again by this process; the job was answered before."""

START_PREFIX: Final = "LKSegment worker: "


NEEDED: Final = ("numpy", "torch", "safetensors", "SimpleITK")
"""What a worker needs beyond the standard library."""


class OutOfMemory(RunError):
    """Not enough memory on the device or the machine; the process is still usable."""


class DeviceFault(RunError):
    """The device reported a fault after which this process cannot use it any more."""


@contextmanager
def plain_errors(device: str = "") -> Iterator[None]:
    """Turns errors of torch, the system and missing packages into LKSegment errors with a sentence.

    ``device`` is named in the sentences. Errors that point to a mistake in LKSegment itself pass unchanged.
    """
    try:
        yield
    except LKSegmentError as error:  # a sentence already; what caused it decides what happens to the process
        if isinstance(error.__cause__, RuntimeError) and _is_device_fault(error.__cause__):
            raise DeviceFault(str(error)) from error.__cause__
        if isinstance(error.__cause__, RuntimeError | MemoryError) and _is_out_of_memory(error.__cause__):
            raise OutOfMemory(str(error)) from error.__cause__
        raise
    except ModuleNotFoundError as error:
        raise InputError(missing_package(error.name or str(error), sys.executable)) from error
    except MemoryError as error:
        raise OutOfMemory(_memory_sentence("")) from error
    except RuntimeError as error:
        if _is_out_of_memory(error):
            raise OutOfMemory(_memory_sentence(device)) from error
        if _is_device_fault(error):
            raise DeviceFault(
                f"The device {device or 'in use'} failed: {_first_line(error)}. A fresh worker starts with the next "
                "request; if it happens again, restart the computer or choose the CPU as device."
            ) from error
        raise RunError(f"The network stopped with an error: {_first_line(error)}.") from error
    except OSError as error:
        raise RunError(f"The system refused something while the job ran: {_first_line(error)}.") from error


def missing_package(name: str, interpreter: str) -> str:
    """What to do when the Python package ``name`` is missing in this interpreter; names the other missing ones too."""
    missing = [name, *(other for other in NEEDED if other != name and importlib.util.find_spec(other) is None)]
    listed = " and ".join(filter(None, [", ".join(map(repr, missing[:-1])), repr(missing[-1])]))
    what = f"The Python package {listed} is" if len(missing) == 1 else f"The Python packages {listed} are"
    slicer = ' (in 3D Slicer: install the extension "PyTorch" and let it install torch)' if "torch" in missing else ""
    return (
        f"{what} missing in {interpreter}: install {'it' if len(missing) == 1 else 'them'} there with "
        f"'\"{interpreter}\" -m pip install {' '.join(missing)}'{slicer}, or choose another interpreter."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text


def _is_device_fault(error: RuntimeError) -> bool:
    if any(kind.__name__ == "AcceleratorError" for kind in type(error).__mro__):
        return True
    text = str(error)
    return "CUDA error" in text or "HIP error" in text or "device-side assert" in text or "CUDNN_STATUS" in text


def _memory_sentence(device: str) -> str:
    where = f"on the device {device!r}" if device and device not in ("cpu", "auto") else "on this computer"
    return (
        f"There was not enough memory {where}: close other programs that use it, choose a smaller model, "
        "crop the volume or choose another device, and try again."
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")


@dataclass(frozen=True)
class CrashReport:
    """What is known about a worker that ended by itself, to be copied into a bug report. No image data."""

    sentence: str
    interpreter: str
    exit_code: int | None
    doing: str
    stderr: tuple[str, ...]
    """The last 20 lines that the worker and its libraries printed."""

    def text(self) -> str:
        """The report as plain text."""
        head = [self.sentence, f"interpreter: {self.interpreter}", f"exit code: {self.exit_code}"]
        return "\n".join([*head, f"while: {self.doing}", "last lines it printed:", *self.stderr])


def death_sentence(doing: str, exit_code: int | None, stderr: Sequence[str], problem: str = "") -> str:
    """One sentence for a worker that ended while ``doing`` something, and what to do.

    ``problem`` is what the connection reported, if it was more than its end. Negative exit codes are signals.
    """
    safe = "The scene is unharmed; the next request starts a fresh worker."
    if problem:
        return f"The worker was stopped while {doing}. {problem} {safe}"
    if exit_code == -9:
        return (
            f"The worker was killed while {doing}, most often because the computer ran out of memory. {safe} "
            "If it happens again, close other programs, choose a smaller model or crop the volume."
        )
    if exit_code is not None and exit_code < 0:
        return f"The worker crashed while {doing} ({_signal_name(-exit_code)}). {safe}"
    if exit_code == EXIT_UNEXPECTED:
        return f"An unexpected error ended the worker while {doing}: {_last(stderr)}. {safe} Please report it."
    return f"The worker ended while {doing} (exit code {exit_code}). {safe}"


def start_sentence(interpreter: str, exit_code: int | None, stderr: Sequence[str], problem: str = "") -> str:
    """One sentence for a worker that ended before it was ready."""
    if exit_code is not None and exit_code < 0 and not problem:
        return death_sentence("starting", exit_code, stderr)
    if exit_code == EXIT_CANNOT_START and stderr and START_PREFIX in stderr[-1]:
        return stderr[-1].split(START_PREFIX, 1)[1]
    reason = problem.rstrip(".") or _last(stderr)
    return (
        f"The worker could not be started with the Python interpreter {interpreter} (exit code {exit_code}): {reason}. "
        "Choose a Python 3.10 or newer in which LKSegment's packages are installed."
    )


def _last(lines: Sequence[str]) -> str:
    return lines[-1].strip().rstrip(".")[:300] if lines else "it printed nothing"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
