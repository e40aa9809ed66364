"""What a prepared form tells from inside: the outputs that the modules it stands for would have had.

    handle = listen(network.attention.gate, keep)    # keep(output) with the module's output (batch, channels, k, j, i)
    network(image)
    handle.remove()

A forward hook hears a module that is called; a prepared form calls none of those inside it, and tells these listeners
instead. Where nobody listens nothing is computed or copied. What is told must not be changed; it stays as it is until
the network has answered.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from LKSegmentLib.operators.packed import as_batch

Listener = Callable[[Tensor], None]

_LISTENERS: WeakKeyDictionary[nn.Module, list[Listener]] = WeakKeyDictionary()


class Listening:
    """A listener at a module, until `remove()`."""

    def __init__(self, module: nn.Module, listener: Listener) -> None:
        self._module, self._listener = module, listener
        _LISTENERS.setdefault(module, []).append(listener)

    def remove(self) -> None:
        """Listen no more. A second call does nothing."""
        listeners = _LISTENERS.get(self._module, [])
        if self._listener in listeners:
            listeners.remove(self._listener)
        if not listeners:
            _LISTENERS.pop(self._module, None)


def listen(module: nn.Module, listener: Listener) -> Listening:
    """Have a listener told the output of a module whenever a prepared form has computed it."""
    return Listening(module, listener)


def heard(module: nn.Module) -> bool:
    """Whether anybody listens to this module."""
    return module in _LISTENERS


def tell(module: nn.Module, output: Tensor) -> None:
    """The module's output of one sample: (1, channels, k, j, i)."""
    for listener in tuple(_LISTENERS.get(module, ())):
        listener(output)


class Told:
    """A module's output that exists in slabs only; gathered where somebody listens, and told when it is whole.

    Args:
        module: whose output it is.
        planes: of all slabs together.
    """

    def __init__(self, module: nn.Module, planes: int) -> None:
        self.heard = heard(module)
        self._module, self._planes, self._filled = module, planes, 0
        self._whole: Tensor | None = None

    def add(self, slab: Tensor) -> None:
        """The next planes (n, rows, columns, channels); copied, so they may be changed afterwards."""
        if not self.heard:
            return
        if self._whole is None:
            self._whole = slab.new_empty((self._planes, *slab.shape[1:]))
        self._whole[self._filled : self._filled + slab.shape[0]] = slab
        self._filled += slab.shape[0]
        if self._filled == self._planes:
            tell(self._module, as_batch(self._whole))
