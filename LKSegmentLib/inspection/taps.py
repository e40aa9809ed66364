"""Reading tensors inside a network while it runs, without changing what it computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.prepared.listening import listen


@contextmanager
def recorded(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of the modules named ``layers`` during the ``with`` block, in whatever form they run.

    Yields a dictionary that fills with copies ``layer → output``. The answer stays bit-identical: hooks only copy.

    Raises:
        InputError: a layer that the network does not have.
    """
    modules = dict(network.named_modules())
    unknown = [layer for layer in layers if layer not in modules]
    if unknown:
        raise InputError(f"The network has no layer {unknown[0]!r}.")
    outputs: dict[str, Tensor] = {}

    def keep(layer: str) -> list[Any]:
        def told(output: Tensor) -> None:
            outputs[layer] = output.detach().clone()

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            told(output)

        return [modules[layer].register_forward_hook(hook), listen(modules[layer], told)]

    handles = [handle for layer in layers for handle in keep(layer)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
