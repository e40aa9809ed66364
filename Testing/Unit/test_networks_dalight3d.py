"""DALight-3D is the published network, with an identifier that means what the user says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks_support import (
    TOLERANCE,
    assert_close,
    published_keys,
    random_image,
    randomise,
    reference_file,
    tensors_of,
)
from torch import Tensor, nn

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.blocks.cross_slice import CrossSliceAttention
from LKSegmentLib.networks.blocks.lightweight import IdentifierNorm
from LKSegmentLib.networks.blocks.skip_fusion import ChannelGate, LowRankAttention, SimpleSkip, SkipFusion
from LKSegmentLib.networks.counting import count_macs, count_parameters
from LKSegmentLib.networks.dalight3d import DALight3D


def small(**options: object) -> DALight3D:
    arguments = {
        "in_channels": 2,
        "out_channels": 3,
        "base_filters": 8,
        "bottleneck_channels": 40,
        "ssfb_rank": 4,
    }
    network = networks.create("dalight3d", **{**arguments, **options})
    assert isinstance(network, DALight3D)
    return network


def published() -> tuple[DALight3D, dict[str, Tensor]]:
    """The network of the reference file, and the reference tensors."""
    tensors = tensors_of(reference_file("dalight3d_small.npz"))
    network = small(in_channels=4, out_channels=4)
    weights = {key[len("sd/") :]: value for key, value in tensors.items() if key.startswith("sd/")}
    networks.load_official(network, weights)
    return network.eval(), tensors


@pytest.mark.parametrize(
    ("options", "count", "gmacs"),
    [
        ({}, 2_219_074, 37.689),
        ({"separable": False}, 9_198_682, 58.35),
        ({"icn": False}, 2_194_498, 37.689),
        ({"csa": False}, 1_924_522, 37.686),
        ({"ssfb": False}, 2_209_588, 36.984),
        ({"bottleneck_channels": None}, 1_523_134, 37.49),
        ({"ssfb_rank": 16}, 2_220_258, 37.94),
    ],
)
def test_counts_are_exact(options: dict[str, object], count: int, gmacs: float) -> None:
    with torch.device("meta"):
        network = networks.create("dalight3d", in_channels=4, out_channels=4, **options)
    assert count_parameters(network) == count
    assert count_macs(network, 4, (64, 64, 64)) / 1e9 == pytest.approx(gmacs, abs=2e-3)


def test_names_shapes_and_order_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = networks.create("dalight3d", in_channels=4, out_channels=4)
    ours = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    assert ours == published_keys("dalight3d_full_in4_out4")


def test_results_are_the_published_ones() -> None:
    network, wanted = published()
    with torch.no_grad():
        assert_close(network(wanted["input"], wanted["input_identifier"]), wanted["output"])
        assert_close(network(wanted["input_b"], None), wanted["output_b"])
        told = network.predict(wanted["input"], wanted["input_identifier"])
    assert_close(told["probs"], wanted["output_probs"])
    assert_close(told["uncertainty"], wanted["output_uncertainty"])
    assert not told["aleatoric"].any()


def test_inner_tensors_are_the_published_ones() -> None:
    network, wanted = published()
    seen: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(module, CrossSliceAttention):
            seen[f"{name}#A"] = module.attention(inputs[0].mean((3, 4)))
        elif isinstance(module, LowRankAttention):
            shape = inputs[0].shape[2:]
            seen[f"{name}#q"] = module.queries(inputs[1]).unflatten(2, shape)
            seen[f"{name}#k"] = module.keys(inputs[0]).unflatten(2, shape)
        elif isinstance(module, ChannelGate):
            seen[f"{name}#gate"] = out

    for name, module in network.named_modules():
        module.register_forward_hook(lambda module, inputs, out, name=name: record(name, module, inputs, out))
    with torch.no_grad():
        network(wanted["input"], wanted["input_identifier"])
    for key in seen:
        assert_close(seen[key], wanted[f"insp/{key}"], 1e-5)
    assert len(seen) == 2 + 2 * 2 + 2


def standard_attention(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, CrossSliceAttention):
            module.standard = True


def standard_softmax_axes(network: nn.Module) -> None:
    def queries(self: LowRankAttention, x: Tensor) -> Tensor:
        return (self.query_proj(x).flatten(2) / 4**0.5).softmax(1)

    def keys(self: LowRankAttention, x: Tensor) -> Tensor:
        return (self.key_proj(x).flatten(2) / 4**0.5).softmax(2)

    for module in network.modules():
        if isinstance(module, LowRankAttention):
            module.queries = queries.__get__(module)
            module.keys = keys.__get__(module)


def raw_alpha(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, SkipFusion):
            with torch.no_grad():
                module.alpha.copy_(torch.special.logit(module.alpha.clamp(0.01, 0.99)))


def swapped_simple_skip(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, SimpleSkip):
            module.register_forward_pre_hook(lambda _, inputs: inputs[::-1])


def swapped_fusion_operands(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, SkipFusion):
            module.fusion.register_forward_pre_hook(
                lambda _, inputs: (inputs[0].roll(inputs[0].shape[1] // 2, 1),)
            )


def tanh_gelu(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"


def ignored_identifier(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, IdentifierNorm):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0], None))


@pytest.mark.parametrize(
    "mistake",
    [
        standard_attention,
        standard_softmax_axes,
        raw_alpha,
        swapped_simple_skip,
        swapped_fusion_operands,
        tanh_gelu,
        ignored_identifier,
    ],
)
def test_planted_mistakes_are_caught(mistake: Callable[[nn.Module], None]) -> None:
    network, wanted = published()
    mistake(network)
    with torch.no_grad():
        out = network(wanted["input"], wanted["input_identifier"])
    assert float((out - wanted["output"]).abs().max()) > TOLERANCE


def test_an_identifier_acts_on_its_own_image_alone() -> None:
    network = randomise(small())
    images = random_image(2, 2, 8, 12, 10)
    with torch.no_grad():
        both = network(images, torch.tensor([5, 0]))
        assert_close(network(images[:1], 5), both[:1])
        assert_close(network(images[1:], torch.tensor([0])), both[1:])
        assert_close(network(images, 5)[:1], both[:1])
        assert float((network(images) - both).abs().max()) > TOLERANCE


def test_identifiers_that_cannot_be_are_refused() -> None:
    network = small().eval()
    images = random_image(2, 2, 8, 8, 8)
    for wrong, sentence in (
        (torch.tensor([0, 8]), r"\[0, 8\] are not all within 0 to 7"),
        (-1, "not all within 0 to 7"),
        (torch.tensor([1, 2, 3]), "3 identifiers for a batch of 2"),
        (torch.tensor([0.5, 1.0]), "whole number"),
    ):
        with pytest.raises(InputError, match=sentence):
            network(images, wrong)


def test_untrained_defaults_can_be_set_to_the_mean_identifier() -> None:
    network = randomise(small())
    network.average_identifiers()
    norm = network.encoder.stages[0].norm1
    assert torch.equal(norm.default_gamma, norm.scanner_gamma.weight.mean(0))
    assert torch.equal(norm.default_beta, norm.scanner_beta.weight.mean(0))


def test_evidence() -> None:
    network = randomise(small(evidential=True))
    image = random_image(1, 2, 8, 12, 10)
    assert "head.net.3.weight" in network.state_dict()
    evidence: list[Tensor] = []
    network.head.register_forward_hook(lambda _, inputs, out: evidence.append(out))
    with torch.no_grad():
        told = network.predict(image)
        logits = network(image)
    alpha = evidence[0] + 1
    total = alpha.sum(1, keepdim=True)
    assert float(evidence[0].min()) >= 0
    assert_close(told["probs"], alpha / total, 1e-6)
    assert_close(logits.softmax(1), alpha / total, 1e-6)
    assert_close(told["epistemic"], 3 / total[:, 0], 1e-6)
    assert_close(told["uncertainty"], told["epistemic"] + told["aleatoric"], 1e-6)
    assert "logits" not in told


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"separable": False},
        {"icn": False},
        {"csa": False},
        {"ssfb": False},
        {"evidential": True},
        {"num_stages": 5, "bottleneck_channels": None},
    ],
    ids=str,
)
def test_training_reaches_every_parameter(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = small(**options).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
    edge = 2 * 2 ** (len(network.feature_sizes) - 1)  # two slices in the deepest attention
    images = random_image(8, 2, edge, 8, 8)
    for _ in range(3):
        optimiser.zero_grad()
        loss = network(images, torch.arange(8)).square().mean() + network(images).square().mean()
        loss.backward()
        optimiser.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # Two published biases add the same to everything a softmax compares, and so have no effect.
        idle = name.endswith((".attention.key.bias", ".query_proj.bias"))
        assert idle or parameter.grad.abs().sum() > 0, name


def test_round_trip_and_refusals() -> None:
    source = randomise(small(), seed=2)
    exported = networks.export_official(source)
    again = networks.export_official(networks.load_official(small(), exported))
    assert all(torch.equal(again[key], exported[key]) for key in exported)
    with pytest.raises(InputError, match="at least 2"):
        source(random_image(1, 2, 1, 1, 1))
    with pytest.raises(InputError, match="at least 17"):  # eight groups of one channel at 1/16
        small(num_stages=5, bottleneck_channels=8).eval()(random_image(1, 2, 16, 16, 16))
    for options, sentence in (
        ({"base_filters": 20}, "multiple of 8"),
        ({"bottleneck_channels": 44}, "multiple of 8"),
        ({"num_stages": 1}, "at least 2"),
        ({"dropout": 1.0}, "below 1"),
    ):
        with pytest.raises(InputError, match=sentence):
            small(**options)
    with torch.no_grad():
        assert source(random_image(1, 2, 2, 3, 2)).shape == (1, 3, 2, 3, 2)
