"""Rep3D: inference as published, a mask that learns, and weights that are never baked twice."""

from __future__ import annotations

from collections.abc import Callable

import networks_rep3d_reference as reference
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
from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.networks.blocks.receptive_bias import (
    ReceptiveBiasBlock,
    ReceptiveBiasConv3d,
    receptive_prior,
    tap_distances,
)
from LKSegmentLib.networks.counting import count_macs, count_parameters
from LKSegmentLib.networks.rep3d import Rep3D

SMALL = {
    "in_channels": 2,
    "out_channels": 3,
    "depths": (1, 2, 1, 1),
    "feature_sizes": (4, 6, 8, 10),
    "hidden_size": 12,
    "kernel_size": 7,
}


def small(**options: object) -> Rep3D:
    network = networks.create("rep3d", **{**SMALL, **options})
    assert isinstance(network, Rep3D)
    return network


def reference_block(edge: int, **options: object) -> tuple[ReceptiveBiasBlock, dict[str, Tensor]]:
    """A block with the reference weights, and the reference results."""
    tensors = tensors_of(reference_file("rep3d_lrbm_reference.npz"), f"k{edge}/")
    block = ReceptiveBiasBlock(2, edge, **options)
    weights = {key[len("gen/") :]: value for key, value in tensors.items() if key.startswith("gen/")}
    weights["dwconv.weight"] = tensors["block/W"]
    for theirs, ours in (
        ("weight", "weight"),
        ("bias", "bias"),
        ("mean", "running_mean"),
        ("var", "running_var"),
    ):
        weights[f"norm.{ours}"] = tensors[f"block/bn_{theirs}"]
    weights["norm.num_batches_tracked"] = torch.tensor(0)
    wanted = block.state_dict()
    block.load_state_dict({key: value for key, value in weights.items() if key in wanted})
    return block.eval(), tensors


@pytest.mark.parametrize(
    ("lrbm", "count"),
    [("learned", 65_832_464), ("fixed", 65_826_928), ("none", 65_826_928), ("per_channel", 66_823_408)],
)
def test_parameters_are_exact(lrbm: str, count: int) -> None:
    with torch.device("meta"):
        network = networks.create("rep3d", in_channels=1, out_channels=16, lrbm=lrbm)
    assert count_parameters(network) == count


@pytest.mark.parametrize(
    ("kernel_size", "classes", "gmacs"),
    [(21, 16, 703.506), (21, 4, 702.996), (21, 3, 702.954), (21, 14, 703.421), (7, 16, 577.758)],
)
def test_multiply_accumulates_are_exact(kernel_size: int, classes: int, gmacs: float) -> None:
    with torch.device("meta"):
        network = networks.create(
            "rep3d", in_channels=1, out_channels=classes, kernel_size=kernel_size, deploy=True
        )
    assert count_macs(network, 1, (96, 96, 96)) / 1e9 == pytest.approx(gmacs, abs=1e-3)


def test_exported_names_shapes_and_order_are_the_published_ones() -> None:
    exported = networks.export_official(networks.create("rep3d", in_channels=1, out_channels=16))
    ours = [(name, tuple(tensor.shape)) for name, tensor in exported.items()]
    assert ours == published_keys("rep3d_full_in1_out16")


@pytest.mark.parametrize("edge", [7, 21])
def test_prior_mask_and_block_agree_with_the_reference(edge: int) -> None:
    block, wanted = reference_block(edge)
    image = wanted["block/input"]
    with torch.no_grad():
        assert_close(block.prior(), wanted["prior"], 1e-6)
        assert_close(block.mask()[0, 0], wanted["mask_recommended"], 1e-5)
        assert_close(block(image), wanted["block/output_recommended_mask"])
        assert_close(reference_block(edge, lrbm="fixed")[0](image), wanted["block/output_fixed_prior"])
        assert_close(reference_block(edge, lrbm="none")[0](image), wanted["block/output_deploy"])
        assert_close(reference_block(edge, deploy=True)[0](image), wanted["block/output_deploy"])


def single_element_norms(block: ReceptiveBiasBlock) -> None:
    """What the released code does: each tap is normalised by itself."""
    block.norm_w.forward = lambda x: torch.zeros_like(x) + block.norm_w.bias
    block.norm_w2.forward = lambda x: torch.zeros_like(x) + block.norm_w2.bias


def squared_mask(block: ReceptiveBiasBlock) -> None:
    once = block.kernel
    block.kernel = lambda: once() * block.mask()


def without_prior(block: ReceptiveBiasBlock) -> None:
    mask = block.mask
    block.mask = lambda: mask() - block.prior()[None, None]


def no_sigmoid(block: ReceptiveBiasBlock) -> None:
    logit = block.norm_w.forward
    block.norm_w.forward = lambda x: torch.special.logit(logit(x).sigmoid().clamp(1e-6, 1 - 1e-6)) * 2


def tanh_gelu(block: ReceptiveBiasBlock) -> None:
    block.act = nn.GELU(approximate="tanh")


@pytest.mark.parametrize(
    "mistake", [single_element_norms, squared_mask, without_prior, no_sigmoid, tanh_gelu]
)
def test_planted_mistakes_are_caught(mistake: Callable[[ReceptiveBiasBlock], None]) -> None:
    block, wanted = reference_block(7)
    mistake(block)
    with torch.no_grad():
        error = (block(wanted["block/input"]) - wanted["block/output_recommended_mask"]).abs().max()
    assert float(error) > TOLERANCE


def test_the_released_arithmetic_degenerates_to_a_constant() -> None:
    block, wanted = reference_block(7)
    single_element_norms(block)
    with torch.no_grad():
        assert_close(block.mask()[0, 0], wanted["mask_official_arithmetic_pad3"], 1e-6)


def test_the_prior_has_the_published_values() -> None:
    prior = receptive_prior(tap_distances(21))
    assert float(prior[10, 10, 10]) == 1
    assert float(prior[10, 10, 11]) == pytest.approx(0.5)
    assert float(prior[10, 11, 11]) == pytest.approx(0.4142, abs=1e-4)
    assert float(prior[0, 0, 0]) == pytest.approx(0.0546, abs=1e-4)
    assert float(prior.sum()) == pytest.approx(922.07, abs=0.01)


@pytest.mark.parametrize("kernel_size", [5, 21])
def test_the_whole_network_agrees_with_a_second_implementation(kernel_size: int) -> None:
    network = randomise(small(deploy=True, kernel_size=kernel_size))
    image = random_image(1, 2, 32, 48 if kernel_size == 5 else 32, 32)
    with torch.no_grad():
        assert_close(network(image), reference.rep3d(network.state_dict(), image, SMALL["depths"]))


def before_the_skip_norm(network: Rep3D) -> None:
    """The next stage takes the normalised output, as in the sibling designs."""
    for stage, norm in ((1, network.rep3d.norm0), (2, network.rep3d.norm1)):
        network.rep3d.downsample_layers[stage].register_forward_pre_hook(
            lambda _, inputs, norm=norm: (norm(inputs[0]),)
        )


def swapped_skip(network: Rep3D) -> None:
    network.decoder3.conv_block.register_forward_pre_hook(
        lambda _, inputs: (inputs[0].roll(inputs[0].shape[1] // 2, 1),)
    )


def block_residual(network: Rep3D) -> None:
    network.rep3d.stages[1][0].register_forward_hook(lambda _, inputs, out: out + inputs[0])


def affine_epsilon(network: Rep3D) -> None:
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm3d):
            module.eps = 1e-2


def steep_activation(network: Rep3D) -> None:
    for module in network.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.2


@pytest.mark.parametrize(
    "mistake", [before_the_skip_norm, swapped_skip, block_residual, affine_epsilon, steep_activation]
)
def test_planted_mistakes_in_the_whole_network_are_caught(mistake: Callable[[Rep3D], None]) -> None:
    network = randomise(small(deploy=True, kernel_size=5))
    image = random_image(1, 2, 32, 32, 32)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    mistake(network)
    with torch.no_grad():
        error = (network(image) - reference.rep3d(weights, image, SMALL["depths"])).abs().max()
    assert float(error) > TOLERANCE


@pytest.mark.parametrize("lrbm", ["learned", "fixed", "none", "per_channel"])
def test_baking_changes_nothing_and_happens_once(lrbm: str) -> None:
    network = randomise(small(lrbm=lrbm))
    image = random_image(1, 2, 32, 32, 32)
    with torch.no_grad():
        raw = network(image)
        baked = network.bake()(image)
    assert_close(baked, raw, 1e-5)
    assert bool(network.lrbm_baked) and network.deploy
    with pytest.raises(RunError, match="baked already"):
        network.bake()
    with pytest.raises(InputError, match="are baked: create the network with deploy=True"):
        small(lrbm=lrbm).load_state_dict(network.state_dict())
    with pytest.raises(InputError, match="are raw: create the network with deploy=False"):
        network.load_state_dict(small(lrbm=lrbm).state_dict())


def test_training_starts_at_the_fixed_prior() -> None:
    learned = ReceptiveBiasConv3d(3, 9)
    assert torch.equal(learned.mask(), ReceptiveBiasConv3d(3, 9, lrbm="fixed").mask())
    per_channel = ReceptiveBiasConv3d(3, 9, lrbm="per_channel")
    assert torch.equal(per_channel.mask(), learned.mask().expand(3, -1, -1, -1, -1))


@pytest.mark.parametrize("lrbm", ["learned", "fixed", "none", "per_channel", "grad"])
def test_training_reaches_every_parameter_and_never_overwrites_the_kernels(lrbm: str) -> None:
    torch.manual_seed(0)
    network = small(lrbm=lrbm, learn_beta=lrbm == "learned").train()
    kernels = {name: block.dwconv.weight for name, block in network.blocks().items()}
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
    image = random_image(2, 2, 32, 32, 32)
    for _ in range(3):
        optimiser.zero_grad()
        network(image).square().mean().backward()
        optimiser.step()
    for name, parameter in network.named_parameters():
        # The norms over the taps cancel these two biases; the published layout has them all the same.
        cancelled = lrbm == "learned" and name.endswith(("prior_conv.bias", "prior_conv2.bias"))
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert cancelled or parameter.grad.abs().sum() > 0, name
    assert all(block.dwconv.weight is kernels[name] for name, block in network.blocks().items())


def test_grad_leaves_the_kernel_and_scales_its_gradient() -> None:
    torch.manual_seed(0)
    scaled, plain = ReceptiveBiasConv3d(3, 5, lrbm="grad"), ReceptiveBiasConv3d(3, 5, lrbm="none")
    plain.load_state_dict(scaled.state_dict())
    x = random_image(1, 3, 8, 8, 8)
    a, b = scaled(x), plain(x)
    assert torch.equal(a, b)
    a.square().sum().backward()
    b.square().sum().backward()
    assert_close(scaled.dwconv.weight.grad, plain.dwconv.weight.grad * scaled.prior(), 1e-3)
    before = scaled.dwconv.weight.detach().clone()
    scaled.bake()
    assert torch.equal(scaled.dwconv.weight, before)


def test_passes_do_not_compound_the_mask() -> None:
    network = randomise(small())
    image = random_image(1, 2, 32, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(image), network(image))


def test_the_published_layout_goes_in_and_out() -> None:
    source = randomise(small(), seed=2)
    exported = networks.export_official(source)
    bare = {key: value for key, value in exported.items() if not key.endswith("prior_map")}
    older = {**exported, "decoder1.layer.conv3.conv.weight": torch.zeros(4, 4, 1, 1, 1)}
    for tensors in (exported, bare, older):
        target = networks.load_official(small(), tensors)
        again = networks.export_official(target)
        assert list(again) == list(exported)
        assert all(torch.equal(again[key], exported[key]) for key in exported)
    deployed = networks.load_official(small(deploy=True), exported)
    name = "rep3d.stages.0.0.dwconv.weight"
    assert torch.equal(deployed.state_dict()[name], exported[name])
    networks.load_official(small(lrbm="fixed", deploy=True), exported)
    networks.load_official(small(learn_beta=True), exported)


def test_collapsed_kernels_are_found() -> None:
    network = randomise(small(deploy=True))
    assert network.collapsed_kernels() == []
    kernel = network.rep3d.stages[1][0].dwconv.weight
    with torch.no_grad():
        centre = kernel[:, :, 3, 3, 3].clone()
        kernel.mul_(1e-5)
        kernel[:, :, 3, 3, 3] = centre
    assert network.collapsed_kernels() == ["rep3d.stages.1.0"]


def test_what_it_cannot_take_is_refused() -> None:
    with pytest.raises(InputError, match=r"40×32×32.*multiples of 16, at least 32.*48×32×32"):
        small().eval()(random_image(1, 2, 40, 32, 32))
    with pytest.raises(InputError, match="at least 32"):
        small().eval()(random_image(1, 2, 16, 16, 16))
    with torch.no_grad():  # two voxels at the bottleneck will do, whichever way they lie
        assert small().eval()(random_image(1, 2, 16, 32, 16)).shape == (1, 3, 16, 32, 16)
    with pytest.raises(InputError, match="'learned', 'fixed', 'none', 'per_channel', 'grad'"):
        small(lrbm="learnt")
    with pytest.raises(InputError, match="odd"):
        small(kernel_size=20)
