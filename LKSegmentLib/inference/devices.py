"""Where networks run. A device that does not exist is an error, never a silent switch to another one."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from LKSegmentLib.errors import InputError

DEVICE_NAME = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


@dataclass(frozen=True)
class DeviceFacts:
    """A device of this machine: the name to give, what it is, its memory in bytes (0 where torch cannot tell)."""

    name: str
    title: str
    memory_bytes: int


def available_devices() -> list[DeviceFacts]:
    """Return the devices that networks can run on here, "auto"'s choice first."""
    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            found.append(DeviceFacts(f"cuda:{index}", properties.name, properties.total_memory))
    found.append(DeviceFacts("cpu", f"CPU, {torch.get_num_threads()} threads", 0))
    if torch.backends.mps.is_available():
        found.append(DeviceFacts("mps", "Apple GPU", 0))
    return found


def resolve_device(name: str | torch.device) -> torch.device:
    """Return the torch device for "auto", "cpu", "cuda", "cuda:1" or "mps".

    "auto" takes the first CUDA device, or the CPU where there is none; "mps" only when it is named, because
    it lacks some of the 3-D operations. Raises InputError when the device does not exist on this machine.
    """
    text = str(name).strip().lower()
    names = [facts.name for facts in available_devices()]
    if not DEVICE_NAME.fullmatch(text):
        raise InputError(f'There is no device "{name}": choose one of auto, {", ".join(names)}.')
    if text == "auto":
        return torch.device(names[0])
    wanted = "cuda:0" if text == "cuda" else text
    if wanted not in names:
        raise InputError(f'The device "{name}" does not exist on this machine: choose one of auto, {", ".join(names)}.')
    return torch.device(wanted)
