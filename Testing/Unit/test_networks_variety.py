"""Every network at other widths, depths, switches, batch sizes and odd input sizes, against second implementations.

Both sides compute in double precision, so that nothing but a different formula can tell them apart. The draws are
those of a fixed seed; LKSEGMENT_DRAWS=100 draws more.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import networks_dalight3d_reference
import networks_dlknetr_reference
import networks_dnet_reference
import networks_lka_unet_reference
import networks_rep3d_reference
import pytest
import torch
from networks_support import assert_close, random_image, randomise
from torch import Tensor

from LKSegmentLib import networks

DRAWS = int(os.environ.get("LKSEGMENT_DRAWS", "2"))
TOLERANCE = 1e-8


def built(name: str, draw: random.Random, **options: Any) -> Any:
    network = networks.create(name, in_channels=draw.randint(1, 3), out_channels=draw.randint(1, 5), **options)
    return randomise(network.double(), draw.randint(0, 999))


def image_for(network: Any, draw: random.Random, multiple: int, least: int, most: int) -> Tensor:
    sizes = (multiple * draw.randint(least, most) for _ in range(3))
    return random_image(draw.randint(1, 2), network.in_channels, *sizes, seed=draw.randint(0, 999)).double()


def evens(draw: random.Random, count: int) -> tuple[int, ...]:
    return tuple(2 * draw.randint(1, 7) for _ in range(count))


def depths(draw: random.Random, count: int) -> tuple[int, ...]:
    return tuple(draw.randint(1, 2) for _ in range(count))


def dnet(draw: random.Random) -> None:
    stages = draw.randint(2, 5)
    counts, selection = depths(draw, stages), draw.choice(("sum", "per_kernel"))
    network = built(
        "dnet", draw, depths=counts, feature_sizes=evens(draw, stages), deep_supervision=True, selection=selection
    )
    image = image_for(network, draw, 2**stages, 1, max(1, 24 >> stages))
    wanted = networks_dnet_reference.dnet(network.state_dict(), image, counts, selection == "per_kernel")
    compare(network(image), wanted)


def dlknetr(draw: random.Random) -> None:
    counts, selection = depths(draw, 5), draw.choice(("sum", "per_kernel"))
    widths = (*evens(draw, 4), draw.randint(1, 9))
    network = built(
        "dlknetr", draw, depths=counts, feature_sizes=widths, deep_supervision=draw.random() < 0.7, selection=selection
    )
    image = image_for(network, draw, 1, 17, 34)
    wanted = networks_dlknetr_reference.dlknetr(network.state_dict(), image, counts, selection == "per_kernel")
    compare(network(image), wanted)


def rep3d(draw: random.Random) -> None:
    lrbm, counts = draw.choice(("learned", "fixed", "none", "per_channel", "grad")), depths(draw, 4)
    network = built(
        "rep3d",
        draw,
        depths=counts,
        feature_sizes=tuple(draw.randint(1, 7) for _ in range(4)),
        hidden_size=draw.randint(1, 9),
        kernel_size=draw.choice((1, 3, 5)),
        lrbm=lrbm,
        learn_beta=draw.random() < 0.5,
    )
    for block in network.blocks().values():
        if isinstance(block.beta, torch.nn.Parameter):
            block.beta.fill_(0.7)
    size = draw.choice(((32, 16, 16), (16, 16, 48), (32, 32, 16)))
    image = random_image(draw.randint(1, 2), network.in_channels, *size, seed=draw.randint(0, 999)).double()
    wanted = networks_rep3d_reference.rep3d(network.state_dict(), image, counts, lrbm)
    compare(network(image), [wanted])
    compare(network.bake()(image), [wanted])
    compare(network(image), [networks_rep3d_reference.rep3d(network.state_dict(), image, counts)])


def lka_unet(draw: random.Random) -> None:
    levels = draw.randint(2, 6)
    pairs = ((21, 3), (6, 2), (9, 3), (15, 3), (5, 1), (8, 8))
    how = {
        "attention": {level: draw.choice(pairs) for level in range(levels - 1) if draw.random() < 0.6},
        "order": draw.choice(("dwd_dw", "dw_dwd")),
    }
    groups = draw.choice((1, 2, 4))
    widths = tuple(8 * draw.randint(1, 2) for _ in range(levels))
    network = built("lka_unet", draw, feature_sizes=widths, norm_groups=groups, deep_supervision=True, **how)
    image = image_for(network, draw, 2 ** (levels - 1), 1, max(1, 48 >> levels))
    compare(network(image), networks_lka_unet_reference.lka_unet(network.state_dict(), image, groups=groups, **how))


def dalight3d(draw: random.Random) -> None:
    switches = {switch: draw.random() < 0.7 for switch in ("separable", "icn", "csa", "ssfb")}
    switches |= {switch: draw.random() < 0.3 for switch in ("csa_standard", "evidential")}
    network = built(
        "dalight3d",
        draw,
        base_filters=8 * draw.randint(1, 3),
        num_stages=draw.randint(2, 5),
        max_channels=draw.choice((24, 384)),
        bottleneck_channels=draw.choice((None, 16, 40)),
        ssfb_rank=draw.randint(1, 9),
        **switches,
    )
    image = image_for(network, draw, 1, 2, 20)
    identifier = draw.choice((None, torch.tensor([draw.randint(0, 7) for _ in image])))
    wanted = networks_dalight3d_reference.dalight3d(
        network.state_dict(), image, identifier, switches["csa_standard"]
    )
    compare(network(image, identifier), [wanted["logits"] if "logits" in wanted else (wanted["evidence"] + 1).log()])
    told = network.predict(image, identifier)
    for name, values in told.items():
        assert_close(values, wanted[name], 1e-5)  # given in single precision, as released


def compare(logits: Tensor | list[Tensor], wanted: list[Tensor]) -> None:
    """The same levels, shapes and values."""
    for ours, theirs in zip(logits if isinstance(logits, list) else [logits], wanted, strict=True):
        assert_close(ours, theirs, TOLERANCE * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("seed", range(DRAWS))
@pytest.mark.parametrize("check", [dnet, dlknetr, rep3d, lka_unet, dalight3d], ids=lambda check: check.__name__)
def test_any_form_agrees_with_a_second_implementation(check: Callable[[random.Random], None], seed: int) -> None:
    with torch.no_grad():
        check(random.Random(seed))
