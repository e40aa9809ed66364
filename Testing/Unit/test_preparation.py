"""Networks prepared for inference: the same logits, reversible, and never silently out of date."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.networks.prepared import norms
from LKSegmentLib.operators import slabs

SMALL = [
    ("dnet", {"feature_sizes": (6, 8, 10, 12, 14), "depths": (1, 2, 1, 1, 1), "layer_scale": 0.5}, (32, 64, 32)),
    ("dnet", {"feature_sizes": (6, 8), "depths": (1, 1), "layer_scale": 0.5, "selection": "per_kernel"}, (20, 24, 28)),
    ("dnet", {"feature_sizes": (4, 6), "depths": (1, 1), "salience_norm": "separate"}, (12, 12, 40)),
    ("lka_unet", {"feature_sizes": (8, 8, 16), "attention": {0: (21, 3), 1: (6, 2)}}, (24, 32, 20)),
    (
        "lka_unet",
        {"feature_sizes": (8, 16), "norm_groups": 4, "attention": {0: (9, 3)}, "order": "dw_dwd"},
        (18, 20, 22),
    ),
    ("lk_click", {"feature_sizes": (8, 8, 16)}, (16, 24, 32)),
    ("dlknetr", {"feature_sizes": (4, 6, 8, 10, 12), "depths": (1, 1, 1, 1, 1)}, (35, 33, 37)),
    ("dlknetr", {"feature_sizes": (4, 6, 8, 10, 12), "depths": (1, 1, 1, 1, 1)}, (32, 32, 32)),
    (
        "rep3d",
        {"feature_sizes": (4, 4, 6, 8), "hidden_size": 8, "depths": (1, 1, 1, 1), "kernel_size": 5},
        (32, 32, 48),
    ),
]


def network_of(name: str, options: dict[str, Any]) -> nn.Module:
    """A network in evaluation mode whose norms all do something."""
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    network = networks.create(name, out_channels=3, **options).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
        if isinstance(module, nn.BatchNorm3d | nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    return network


def image_for(network: nn.Module, size: tuple[int, int, int], batch: int = 1) -> torch.Tensor:
    channels = int(getattr(network, "in_channels", 9))
    return torch.randn((batch, channels, *size), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("thin", [False, True], ids=["whole", "in thin slabs"])
@pytest.mark.parametrize(("name", "options", "size"), SMALL)
def test_prepared_logits_are_the_plain_ones(
    name: str, options: dict[str, Any], size: tuple[int, int, int], thin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if thin:  # as if the maps were large
        monkeypatch.setattr(slabs, "SLAB_BYTES", 1)
        monkeypatch.setattr("LKSegmentLib.operators.depthwise_cpu.SLAB_BYTES", 1)
        monkeypatch.setattr("LKSegmentLib.operators.depthwise_cpu._ONE_SLAB_BYTES", 1)
        monkeypatch.setattr("LKSegmentLib.operators.depthwise_cpu._SMALL_BYTES", 1)
        monkeypatch.setattr("LKSegmentLib.networks.prepared.blocks._SMALL_MAP_BYTES", 1)
        monkeypatch.setattr("LKSegmentLib.networks.prepared.blocks._HIDDEN_BYTES", 1)
    network = network_of(name, options)
    image = image_for(network, size, batch=2)
    with torch.inference_mode():
        plain = network(image)
        with networks.prepare_for_inference(network) as fast:
            prepared = fast(image)
            again = fast(image)
        after = network(image)
    assert prepared.shape == plain.shape
    assert float(plain.std()) > 1e-3, "logits that say nothing compare equal to anything"
    torch.testing.assert_close(prepared, plain, rtol=0, atol=1e-4)
    assert torch.equal(prepared, again)
    assert torch.equal(after, plain)


def test_nothing_of_the_network_changes() -> None:
    network = network_of(*SMALL[0][:2])
    before = copy.deepcopy(network.state_dict())
    preparation = networks.prepare_for_inference(network)
    assert preparation.replaced == [""]
    during = network.state_dict()
    preparation.undo()
    preparation.undo()
    for state in (during, network.state_dict()):
        assert list(state) == list(before)
        assert all(torch.equal(state[key], before[key]) for key in before)
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_blocks_of_other_networks_are_found() -> None:
    click = network_of(*SMALL[5][:2])
    with networks.prepare_for_inference(click):
        pass
    replaced = networks.prepare_for_inference(click).replaced
    assert "attention" in replaced and "decoder_quarter.0" in replaced
    masked = network_of(*SMALL[8][:2])
    assert "rep3d.stages.0.0" in networks.prepare_for_inference(masked).replaced


def test_gradients_training_and_deep_supervision_take_the_ordinary_way() -> None:
    network = network_of(*SMALL[1][:2])
    image = image_for(network, SMALL[1][2])
    with networks.prepare_for_inference(network):
        logits = network(image)
        assert logits.requires_grad
        logits.sum().backward()
        assert all(parameter.grad is not None for parameter in network.decoder.final_layer.parameters())
        network.deep_supervision = True
        with torch.inference_mode():
            assert len(network(image)) == 2


def test_changed_weights_are_noticed() -> None:
    network = network_of(*SMALL[1][:2])
    image = image_for(network, SMALL[1][2])
    with torch.no_grad(), networks.prepare_for_inference(network):
        network(image)
        network.decoder.output_layer.bias.add_(1)
        with pytest.raises(RunError, match="changed after it was prepared"):
            network(image)


def test_what_cannot_be_prepared_is_refused() -> None:
    network = network_of(*SMALL[1][:2])
    with pytest.raises(InputError, match="evaluation mode"):
        networks.prepare_for_inference(network.train())
    network.eval()
    with pytest.raises(InputError, match=r"not torch\.float16"):
        networks.prepare_for_inference(network, dtype=torch.float16)
    with networks.prepare_for_inference(network), pytest.raises(InputError, match="prepared already"):
        networks.prepare_for_inference(network)
    with networks.prepare_for_inference(network), torch.inference_mode(), pytest.raises(InputError, match="multiple"):
        network(torch.zeros(1, 1, 21, 24, 24))


def test_bfloat16_only_on_request() -> None:
    network = network_of(*SMALL[1][:2])
    image = image_for(network, SMALL[1][2])
    with torch.inference_mode():
        plain = network(image)
        with networks.prepare_for_inference(network, dtype=torch.bfloat16):
            coarse = network(image)
    assert coarse.dtype == torch.float32
    difference = float((coarse - plain).abs().max() / plain.abs().max())
    assert 1e-4 < difference < 0.1


def test_statistics_of_slabs_are_those_of_the_map() -> None:
    generator = torch.Generator().manual_seed(3)
    raw = torch.randn((9, 5, 6, 8), generator=generator, dtype=torch.float64) * 3 + 50
    norm = nn.GroupNorm(4, 8).double()
    nn.init.normal_(norm.weight, generator=generator)
    nn.init.normal_(norm.bias, generator=generator)
    expected = nn.functional.leaky_relu(norm(raw.permute(3, 0, 1, 2)[None]), 0.1)[0].permute(1, 2, 3, 0)
    found = norms.SpaceNorm(norm, 0.1).of_slabs(slabs.slabs_of(raw, 2), 9)
    torch.testing.assert_close(torch.cat(list(found.slabs(4))), expected.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.settled(), expected.detach(), rtol=0, atol=1e-10)
