"""The examples of docs/blocks.md and of the blocks' own documentation run as printed, and wrong values are refused."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks import blocks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "blocks.md"
INNER = {"ChannelLayerNorm", "DynamicLargeKernelModule", "ReceptiveBiasBlock"}
PUBLIC = [name for name in blocks.__all__ if name not in INNER]


def test_the_examples_of_the_page_run() -> None:
    pytest.importorskip("monai")
    torch.manual_seed(0)
    scope: dict[str, Any] = {}
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 11
    for example in examples:
        exec(compile(example, PAGE.name, "exec"), scope)


def test_every_block_has_an_example_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"blocks.{name}(" in page for name in PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_in_the_documentation_of_a_block_runs(name: str) -> None:
    told = getattr(blocks, name).__doc__
    example = re.search(r"Example::\n\n(.*?)(?:\n\n|\Z)", textwrap.dedent(f"    {told}"), re.DOTALL)
    assert example and f"{name}(" in example[1] and "assert " in example[1]
    torch.manual_seed(0)
    exec(compile(textwrap.dedent(example[1]), name, "exec"), {"torch": torch, **vars(blocks)})


def test_maps_of_different_shapes_are_refused() -> None:
    small, large = torch.zeros(1, 8, 4, 4, 4), torch.zeros(1, 8, 4, 4, 6)
    with pytest.raises(InputError, match="one shape"):
        blocks.DynamicFeatureFusion(8)(small, large)
    with pytest.raises(InputError, match="one shape"):
        blocks.SkipFusion(8)(small, large)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: blocks.LKAttention(8, order="dw"), "'dwd_dw', 'dw_dwd'"),
        (lambda: blocks.LKAttention(8, kernel=20, dilation=3), "odd multiple of the dilation"),
        (lambda: blocks.LKAttention(8.0), "channels=8.0"),
        (lambda: blocks.DynamicLargeKernel(7), "multiple of 2"),
        (lambda: blocks.DynamicLargeKernel(8, "both"), "'sum', 'per_kernel'"),
        (lambda: blocks.DynamicLargeKernelBlock(8, layer_scale="no"), "layer_scale='no'"),
        (lambda: blocks.DynamicFeatureFusion(0), "channels=0"),
        (lambda: blocks.SalienceLayer(1, 8, norm="own"), "'shared', 'separate'"),
        (lambda: blocks.ReceptiveBiasConv3d(8, kernel_size=20), "odd"),
        (lambda: blocks.ReceptiveBiasBlock(8, lrbm="best"), "'learned', 'fixed', 'none', 'per_channel', 'grad'"),
        (lambda: blocks.CrossSliceAttention(8, standard="yes"), "True, False"),
        (lambda: blocks.SkipFusion(12), "multiple of 8"),
        (lambda: blocks.SelfAdaptiveConv2d(8, candidates=(3, 4)), "odd"),
        (lambda: blocks.SelfAdaptiveConv2d(8, candidates=()), "at least one"),
    ],
)
def test_wrong_values_are_refused_with_the_allowed_ones(build: Callable[[], object], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        build()
