"""Signs in imported weights that something went wrong before: warnings for a person, and a trial run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.blocks.lightweight import IdentifierNorm
from LKSegmentLib.networks.blocks.receptive_bias import receptive_prior, tap_distances
from LKSegmentLib.networks.rep3d import Rep3D

# Kernels that fall off from the centre less than this share of the prior's fall look unmasked.
RAW_SLOPE = 0.25


def suspicions(network: nn.Module, heads: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each sign that the network will not do what its authors published.

    heads    names of the output layers' tensors
    """
    tensors = network.state_dict()
    for head in heads:
        if head in tensors and not tensors[head].any():
            yield f'The output layer "{head}" is all zero: the network answers the same everywhere, it was not trained.'
    if isinstance(network, Rep3D):
        yield from suspicions_about_kernels(network)
    if untrained_defaults(network):
        yield (
            "The norms' default scale and shift are untrained (the training always gave an identifier), and models run "
            "without an identifier here: --average-identifiers sets them to the means over the identifiers."
        )


def suspicions_about_kernels(network: Rep3D) -> Iterator[str]:
    """Yield what is odd about the large kernels of Rep3D."""
    collapsed = network.collapsed_kernels()
    if collapsed:
        yield (
            f"{len(collapsed)} of {len(network.blocks())} large kernels have collapsed to their centre tap (first: "
            f"{collapsed[0]}), as the published training code makes them: the network sees no context there."
        )
    kept = [block.dwconv.weight for name, block in network.blocks().items() if name not in collapsed]
    slope = centre_slope(kept)
    if network.deploy and slope is not None and slope < RAW_SLOPE:
        yield (
            f"The large kernels hardly fall off from their centre (exponent {slope:.2f}, a baked mask gives about 1): "
            "if these weights are raw ones from training, import them with --option deploy=false."
        )


def centre_slope(kernels: Sequence[Tensor]) -> float | None:
    """Return s in |W| ~ prior^s, fitted to the root mean squares of all taps off the centre; None without any.

    kernels    (channels, 1, K, K, K) each. The fixed prior baked into evenly spread weights gives 1, without it 0.
    """
    energies, priors = [], []
    for kernel in kernels:
        distances = tap_distances(kernel.shape[-1])
        energy = kernel.detach().double().square().mean(dim=(0, 1))
        used = (distances > 0) & (energy > 0)
        energies.append(energy[used].log() / 2)
        priors.append(receptive_prior(distances)[used].double().log())
    if not energies or sum(len(part) for part in energies) < 2:
        return None
    x = torch.cat([part - part.mean() for part in priors if len(part)])
    y = torch.cat([part - part.mean() for part in energies if len(part)])
    spread = float((x * x).sum())
    return float((x * y).sum()) / spread if spread > 0 else None


def untrained_defaults(network: nn.Module) -> bool:
    """Whether norms with identifiers have trained tables beside defaults as they are created (1 and 0)."""
    norms = [module for module in network.modules() if isinstance(module, IdentifierNorm)]
    fresh = all(bool((norm.default_gamma == 1).all()) and not norm.default_beta.any() for norm in norms)
    trained = any(bool((norm.scanner_gamma.weight != 1).any()) for norm in norms)
    return fresh and trained


def try_out(network: nn.Module, in_channels: int, where: str) -> None:
    """Run the network on a small noise image. InputError when it fails or its answer is not finite."""
    multiple, minimum = (int(getattr(network, name, 1)) for name in ("size_multiple", "minimum_size"))
    edge = math.ceil(max(multiple, minimum, 2) / multiple) * multiple
    noise = torch.randn((1, in_channels, edge, edge, edge), generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            answer = network(noise)
    except RuntimeError as error:
        raise InputError(
            f"{where} cannot run ({str(error).splitlines()[0]:.160}): its weights do not belong together."
        ) from error
    logits = answer[0] if isinstance(answer, (list, tuple)) else answer
    if not bool(torch.isfinite(logits).all()):
        raise InputError(
            f"{where} answers noise with values that are not finite: its weights or running statistics are damaged."
        )
