"""What the network tests share: where the reference files are, and weights that leave no path silent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

TOLERANCE = 1e-4

_REPOSITORY = Path(__file__).resolve().parents[2]


def reference_file(name: str) -> Path:
    """A file of reference tensors; the test is skipped where this machine has none."""
    folder = os.environ.get("LKSEGMENT_FIXTURES") or _REPOSITORY.parent / "shared" / "fixtures"
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"no reference file {name} on this machine (set LKSEGMENT_FIXTURES)")
    return path


def published_keys(name: str) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors of a published network, in order."""
    entries = json.loads(reference_file(f"{name}.keys.json").read_text())["entries"]
    return [(entry["key"], tuple(entry["shape"])) for entry in entries]


def tensors_of(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The arrays of an .npz whose names start with `prefix`, which is taken off, as tensors."""
    with np.load(path) as arrays:
        return {
            key[len(prefix) :]: torch.from_numpy(arrays[key])
            for key in arrays.files
            if key.startswith(prefix) and key != "meta_json"
        }


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor, norms, statistics and layer scales included, a value that makes its path matter."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) * (high - low) + low

    def normal(tensor: Tensor, deviation: float) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * deviation

    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_mean"):
                tensor.copy_(normal(tensor, 0.3))
            elif name.endswith("running_var"):
                tensor.copy_(uniform(tensor, 0.5, 1.5))
            elif name.endswith("layer_scale"):
                tensor.copy_(uniform(tensor, 0.2, 0.9))
            elif tensor.ndim > 1:
                tensor.copy_(normal(tensor, (1.5 / tensor[0].numel()) ** 0.5))
            elif name.endswith(("weight", "gamma")):
                tensor.copy_(uniform(tensor, 0.6, 1.4))
            else:
                tensor.copy_(normal(tensor, 0.1))
    return network.eval()


def random_image(*shape: int, seed: int = 1) -> Tensor:
    """A noise image of the given shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_close(result: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    """Same shape, and nowhere further apart than `tolerance`."""
    assert result.shape == wanted.shape
    assert float((result.detach().double() - wanted.detach().double()).abs().max()) <= tolerance
