"""Prepare a network for inference on a CPU: the same logits (to 1e-4), several times faster, in less memory.

    with prepare_for_inference(network):
        logits = network(image)

What is done depends on the network:

- D-Net and the LK-attention U-Net run whole in the forms of `prepared`: channels-last memory, norms and layer
  scales folded into weights, nothing concatenated, large maps in slabs.
- In any other network the blocks that these share (DLK, DFF, LK attention, Salience) and the residual blocks of
  Rep3D and DLKNETR are replaced.
- Rep3D's masked kernels are computed once instead of at every call.

Training, gradients, other devices, other number types and deep supervision take the ordinary way, also while
prepared. The parameters themselves are not touched, so a state dict is the same before, during and after; the
prepared forms hold copies, which `undo` lets go. Changed weights are noticed and refused. A prepared network keeps
the memory of its largest maps between calls, so two threads must not call it at once. Modules inside a prepared form
are not called, so their forward hooks are silent; `prepared.listening` tells what they would have answered.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError, RunError

from .blocks.dynamic_large_kernel import DynamicLargeKernelBlock
from .blocks.feature_fusion import DynamicFeatureFusion
from .blocks.lk_attention import LKAttention
from .blocks.receptive_bias import ReceptiveBiasConv3d
from .blocks.residual import ResidualBlock, UpBlock
from .blocks.salience import SalienceLayer
from .constraints import check_input
from .dnet import DNet
from .lka_unet import LKAUNet
from .prepared.blocks import PreparedAttention, PreparedFusion, PreparedLargeKernelBlock
from .prepared.dnet import PreparedDNet, PreparedSalience
from .prepared.lka_unet import PreparedLKAUNet
from .prepared.residual import PreparedResidualBlock, PreparedUpBlock

_WHOLE: dict[type[nn.Module], Callable[[Any], Callable[..., Tensor]]] = {
    DNet: PreparedDNet,
    LKAUNet: PreparedLKAUNet,
}
_BLOCKS: dict[type[nn.Module], Callable[[Any], Callable[..., Tensor]]] = {
    DynamicLargeKernelBlock: PreparedLargeKernelBlock,
    DynamicFeatureFusion: PreparedFusion,
    LKAttention: PreparedAttention,
    SalienceLayer: PreparedSalience,
    ResidualBlock: PreparedResidualBlock,
    UpBlock: PreparedUpBlock,
}


class Preparation:
    """What `prepare_for_inference` did; undo it with `undo()` or by leaving a `with` block.

    Attributes:
        network: the prepared network itself.
        replaced: names of the modules that run in a prepared form ("" is the network).
    """

    def __init__(self, network: nn.Module, low_precision: bool) -> None:
        self.network = network
        self.replaced: list[str] = []
        self._undone = False
        self._versions = _versions(network)
        with torch.no_grad():
            self._prepare(network, "", low_precision)

    def _prepare(self, module: nn.Module, name: str, low_precision: bool) -> None:
        if low_precision:
            return self._replace(module, name, _HalfPrecision(module))
        if type(module) in _WHOLE:
            fast = _WHOLE[type(module)](module)
            return self._replace(module, name, _Prepared(module, fast, self.check_weights))
        if type(module) in _BLOCKS:
            fast = _BLOCKS[type(module)](module)
            return self._replace(module, name, _Prepared(module, fast, self.check_weights))
        if isinstance(module, ReceptiveBiasConv3d) and not module.deploy:
            module_kernel = module.kernel().detach()
            setattr(module, "kernel", _Constant(module_kernel))  # noqa: B010 (a method of the module)
            self.replaced.append(name)
        for child_name, child in module.named_children():
            self._prepare(child, f"{name}.{child_name}".lstrip("."), low_precision)
        return None

    def _replace(self, module: nn.Module, name: str, forward: Callable[..., Any]) -> None:
        setattr(module, "forward", forward)  # noqa: B010 (an attribute that hides the class's method)
        self.replaced.append(name)

    def check_weights(self) -> None:
        """Raises RunError when the network's weights are not those it was prepared with."""
        if self._versions != _versions(self.network):
            raise RunError(
                "The network's weights were changed after it was prepared for inference, and the prepared copies "
                "are out of date. Undo the preparation and prepare the network again."
            )

    def undo(self) -> None:
        """Give the network its ordinary forward back. A second call does nothing."""
        if self._undone:
            return
        self._undone = True
        for name in self.replaced:
            module = self.network.get_submodule(name)
            for attribute in ("forward", "kernel"):
                module.__dict__.pop(attribute, None)

    def __enter__(self) -> nn.Module:
        return self.network

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def prepare_for_inference(network: nn.Module, dtype: torch.dtype = torch.float32) -> Preparation:
    """Make a network fast for inference, until the preparation is undone.

    Args:
        network: in evaluation mode.
        dtype: `torch.bfloat16` computes convolutions and products with 8 bits of mantissa instead of 24: only on
            request, because the logits then differ in their third digit. Other forms are then not prepared.

    Returns:
        The preparation: a context manager that gives the network and undoes itself at the end.

    Raises:
        InputError: the network is in training mode, is prepared already, or the number type is another one.
    """
    if network.training:
        raise InputError("Only a network in evaluation mode can be prepared for inference; call eval() first.")
    if any("forward" in module.__dict__ for module in network.modules()):
        raise InputError("This network is prepared already. Undo that preparation first.")
    if dtype not in (torch.float32, torch.bfloat16):
        raise InputError(f"A network can be prepared for torch.float32 or torch.bfloat16, not {dtype}.")
    return Preparation(network, low_precision=dtype == torch.bfloat16)


class _Prepared:
    """A forward that runs the prepared form where that applies, else the module's own."""

    def __init__(self, module: nn.Module, fast: Callable[..., Tensor], check: Callable[[], None]) -> None:
        self._module: Any = module
        self._fast, self._check = fast, check
        self._whole = type(module) in _WHOLE

    def __call__(self, *maps: Tensor) -> Any:
        module = self._module
        if not self._applies(*maps):
            return type(module).forward(module, *maps)
        self._check()
        if self._whole:
            check_input(
                type(module).__name__, maps[0].shape, module.in_channels, module.size_multiple, module.minimum_size
            )
        results = [
            self._fast(*(x.permute(1, 2, 3, 0).contiguous() for x in sample))
            for sample in zip(*maps, strict=True)
        ]
        stacked = results[0].unsqueeze(0) if len(results) == 1 else torch.stack(results)
        return stacked.permute(0, 4, 1, 2, 3)

    def _applies(self, *maps: Tensor) -> bool:
        needs_gradients = torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (*maps, *self._module.parameters())
        )
        return not (
            needs_gradients
            or self._module.training
            or getattr(self._module, "deep_supervision", False)
            or any(x.device.type != "cpu" or x.dtype != torch.float32 for x in maps)
            or torch.is_autocast_enabled("cpu")
            or not self._fits(*maps)
        )


    def _fits(self, *maps: Tensor) -> bool:
        """Maps of sizes that do not fit are for the module's own forward, to crop or to refuse."""
        if isinstance(self._fast, PreparedUpBlock):
            return self._fast.takes(*maps)
        return all(x.shape == maps[0].shape for x in maps)


class _HalfPrecision:
    """A forward under bfloat16 autocast on channels-last memory; results in single precision."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, image: Tensor) -> Any:
        image = image.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(image.device.type, dtype=torch.bfloat16):
            logits = type(self._module).forward(self._module, image)
        return [part.float() for part in logits] if isinstance(logits, list) else logits.float()


class _Constant:
    """A method that always answers the same tensor."""

    def __init__(self, value: Tensor) -> None:
        self._value = value

    def __call__(self) -> Tensor:
        return self._value


def _versions(network: nn.Module) -> list[tuple[int, int]]:
    """Identity and change counter of every parameter and buffer; inference tensors have no counter."""
    tensors = [*network.parameters(), *network.buffers()]
    return [(t.data_ptr(), -1 if t.is_inference() else t._version) for t in tensors]


