"""The examples of docs/blocks.md run as printed, and the blocks refuse what they cannot take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks import blocks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "blocks.md"


def test_the_examples_run() -> None:
    pytest.importorskip("monai")
    torch.manual_seed(0)
    scope: dict[str, Any] = {}
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 11
    for example in examples:
        exec(compile(example, PAGE.name, "exec"), scope)


def test_every_block_has_an_example() -> None:
    page = PAGE.read_text(encoding="utf-8")
    inner = {"ChannelLayerNorm", "DynamicLargeKernelModule", "ReceptiveBiasBlock"}
    assert all(f"blocks.{name}(" in page for name in blocks.__all__ if name not in inner)


def test_maps_of_different_shapes_are_refused() -> None:
    small, large = torch.zeros(1, 8, 4, 4, 4), torch.zeros(1, 8, 4, 4, 6)
    with pytest.raises(InputError, match="one shape"):
        blocks.DynamicFeatureFusion(8)(small, large)
    with pytest.raises(InputError, match="one shape"):
        blocks.SkipFusion(8)(small, large)
