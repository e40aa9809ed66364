"""Weights on disk (safetensors) and in a network. torch is imported inside functions only."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from LKSegmentLib.errors import InputError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("keep", "float16", "float32")
# What a constructor may raise for values it cannot work with.
CONSTRUCTOR_ERRORS = (
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AssertionError,
    ZeroDivisionError,
    RuntimeError,
)


def create(
    network: str,
    options: Mapping[str, Any],
    in_channels: int,
    out_channels: int,
    where: str,
    device: str = "cpu",
    stored: int | None = None,
) -> torch.nn.Module:
    """Return a freshly built network. On the device "meta" it has shapes but takes no memory.

    `stored` is how many tensors the weights hold; building stops when the network has many more.
    Raises InputError when the network is unknown, does not take the options, or cannot belong to the weights.
    """
    import torch

    from LKSegmentLib import networks

    if network not in networks.names():
        raise InputError(
            f'{where} asks for the network "{network}", which this LKSegment does not have '
            f"(it has {', '.join(networks.names())}): update LKSegment or choose another package."
        )
    try:
        # Building draws random numbers; whoever trains in this process must not notice.
        with torch.random.fork_rng(devices=[]), torch.device(device), bounded(stored):
            return networks.create(network, in_channels=in_channels, out_channels=out_channels, **options)
    except InputError as error:  # already a sentence
        raise InputError(f"{where}: {error}") from error
    except CONSTRUCTOR_ERRORS as error:
        raise InputError(
            f'{where}: the network "{network}" cannot be built with the options {dict(options)!r:.200} ({error}): '
            "correct the options."
        ) from error


@contextmanager
def bounded(stored: int | None) -> Iterator[None]:
    """While active, ValueError once this thread has made over four times `stored` parameters.

    Four times, as constructors may replace some. Thousands of layers take minutes to build, on "meta" too.
    """
    if stored is None:
        yield
        return
    from torch.nn.modules.module import register_module_parameter_registration_hook

    made, thread = 0, threading.get_ident()

    def count(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
        nonlocal made
        made += threading.get_ident() == thread
        if made > 4 * stored:
            raise ValueError("it has more tensors than its weights")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def misfit(network: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> str | None:
    """Return what keeps `weights` from fitting `network` as part of a sentence, or None when they fit."""
    expected = network.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            return f'"{name}" is missing'
        if weights[name].shape != tensor.shape:
            return f'"{name}" has the shape {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}'
    unknown = [name for name in weights if name not in expected]
    return f'"{unknown[0]}" is not part of the network' if unknown else None


def to_bytes(state_dict: Mapping[str, torch.Tensor], precision: str, where: str) -> bytes:
    """Return the safetensors bytes of a state dict, floating-point tensors in `precision`.

    Raises InputError for tensors with NaN or infinite values, also when float16 cannot hold them.
    """
    import safetensors.torch
    import torch

    if precision not in PRECISIONS:
        raise InputError(f'There is no weight precision "{precision}": choose one of {", ".join(PRECISIONS)}.')
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in state_dict.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f'{where}: "{name}" in the state dict is not a tensor: give network.state_dict().')
        value = tensor.detach().cpu()
        if value.is_floating_point() and precision != "keep":
            value = value.to(getattr(torch, precision))
        # A copy, because safetensors refuses tensors that share memory.
        tensors[name] = value.clone(memory_format=torch.contiguous_format)
    refuse_non_finite(tensors, where)
    return safetensors.torch.save(tensors)


def from_bytes(content: bytes, where: str) -> dict[str, torch.Tensor]:
    """Return the tensors in safetensors bytes, floating-point ones as float32.

    Raises InputError when the bytes are not safetensors or hold values that are not finite.
    """
    import safetensors
    import safetensors.torch
    import torch

    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        kind = "a pickled checkpoint" if content[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05") else "damaged"
        raise InputError(
            f"{where} are not a safetensors file ({kind if kind != 'damaged' else error}): "
            "only safetensors weights are opened, because other files can run code."
        ) from error
    tensors = {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    refuse_non_finite(tensors, where)
    return tensors


def refuse_non_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """InputError when a tensor holds NaN or infinite values."""
    for name, tensor in tensors.items():
        # The sum of a finite float tensor in double precision is finite, and this makes no mask in memory.
        if tensor.is_floating_point() and not math.isfinite(tensor.double().abs().sum().item()):
            raise InputError(f'{where}: "{name}" holds values that are not finite, so the network cannot answer.')
