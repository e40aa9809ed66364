"""D-Net is the published network: counts, names, results, and mistakes that the checks catch."""

from __future__ import annotations

from collections.abc import Callable

import networks_dnet_reference as reference
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
from LKSegmentLib.networks.blocks import (
    ChannelLayerNorm,
    DynamicLargeKernel,
    DynamicLargeKernelBlock,
    DynamicLargeKernelModule,
)
from LKSegmentLib.networks.blocks.dynamic_large_kernel import ChannelMixer
from LKSegmentLib.networks.blocks.feature_fusion import DynamicFeatureFusion
from LKSegmentLib.networks.blocks.salience import SalienceLayer
from LKSegmentLib.networks.counting import count_parameters
from LKSegmentLib.networks.dnet import DNet, FinalBlock

SMALL = {"depths": (1, 2, 1, 1, 1), "feature_sizes": (4, 6, 8, 10, 12)}
UNITS: dict[str, Callable[[], nn.Module]] = {
    "DLK": lambda: DynamicLargeKernel(6),
    "DLKModule": lambda: DynamicLargeKernelModule(6),
    "DLKBlock": lambda: DynamicLargeKernelBlock(6),
    "Mlp": lambda: ChannelMixer(6),
    "DFF": lambda: DynamicFeatureFusion(6),
    "SaliencyMLPblock": lambda: SalienceLayer(2, 6),
    "Convblock": lambda: FinalBlock(4, 6),
}


def small(**options: object) -> DNet:
    network = networks.create("dnet", in_channels=2, out_channels=3, **{**SMALL, **options})
    assert isinstance(network, DNet)
    return network


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "count"), [(1, 16, 39_279_174), (4, 4, 39_323_178), (1, 3, 39_269_125)]
)
def test_parameters_are_the_published_ones(in_channels: int, out_channels: int, count: int) -> None:
    with torch.device("meta"):
        network = networks.create("dnet", in_channels=in_channels, out_channels=out_channels)
    assert count_parameters(network) == count


def test_names_shapes_and_order_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = networks.create("dnet", in_channels=1, out_channels=16)
    ours = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    assert ours == published_keys("dnet_full_in1_out16")


def unit_error(name: str, spoil: Callable[[nn.Module], None] | None = None) -> float:
    """How far a block is from the published one's output, as it is or with a mistake planted."""
    path = reference_file("dnet_units.npz")
    unit = UNITS[name]()
    unit.load_state_dict(tensors_of(path, f"{name}/sd/"))
    if spoil is not None:
        spoil(unit)
    unit.eval()
    inputs = tensors_of(path, f"{name}/input")
    with torch.no_grad():
        out = unit(*(inputs[number] for number in sorted(inputs)))
    return float((out - tensors_of(path, f"{name}/")["output"]).abs().max())


@pytest.mark.parametrize("name", UNITS)
def test_blocks_give_the_published_results(name: str) -> None:
    assert unit_error(name) <= TOLERANCE


def test_salience_in_training_updates_its_one_norm_twice() -> None:
    tensors = tensors_of(reference_file("dnet_units.npz"), "SaliencyMLPblock/")
    layer = SalienceLayer(2, 6)
    layer.load_state_dict(
        {key[len("sd/") :]: value for key, value in tensors.items() if key.startswith("sd/")}
    )
    before = int(layer.norm_layer.num_batches_tracked)
    out = layer.train()(tensors["input0"])
    assert_close(out, tensors["train_output"])
    assert_close(layer.norm_layer.running_mean, tensors["train_running_mean_after"])
    assert_close(layer.norm_layer.running_var, tensors["train_running_var_after"])
    assert int(layer.norm_layer.num_batches_tracked) == before + 2


def each(unit: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    found = [module for module in unit.modules() if isinstance(module, kind)]
    assert found
    return found


def tanh_gelu(unit: nn.Module) -> None:
    for activation in each(unit, nn.GELU):
        activation.approximate = "tanh"


def per_kernel(unit: nn.Module) -> None:
    for layer in each(unit, DynamicLargeKernel):
        layer.selection = "per_kernel"


def without_layer_residual(unit: nn.Module) -> None:
    layer = each(unit, DynamicLargeKernel)[0]
    layer.register_forward_hook(lambda _, inputs, out: out - inputs[0])


def without_module_residual(unit: nn.Module) -> None:
    module = each(unit, DynamicLargeKernelModule)[0]
    module.register_forward_hook(lambda _, inputs, out: out - inputs[0])


def parallel_kernels(unit: nn.Module) -> None:
    layer = each(unit, DynamicLargeKernel)[0]
    projected: list[Tensor] = []
    layer.channel_proj.register_forward_hook(lambda _, inputs, out: projected.append(out))
    layer.att_conv2.register_forward_pre_hook(lambda _, inputs: (projected[-1],))


def swapped_operands(unit: nn.Module) -> None:
    unit.register_forward_pre_hook(lambda _, inputs: inputs[::-1])


def swapped_concatenation(unit: nn.Module) -> None:
    unit.conv_redu.register_forward_pre_hook(lambda _, inputs: (inputs[0].roll(inputs[0].shape[1] // 2, 1),))


def relu_slope(unit: nn.Module) -> None:
    for activation in each(unit, nn.LeakyReLU):
        activation.negative_slope = 0.01


def without_mixer_norm(unit: nn.Module) -> None:
    unit.mixer_norm = nn.Identity()


MISTAKES = [
    ("Mlp", tanh_gelu),
    ("DLKModule", tanh_gelu),
    ("DLK", per_kernel),
    ("DLK", without_layer_residual),
    ("DLK", parallel_kernels),
    ("DLKModule", without_module_residual),
    ("DFF", swapped_operands),
    ("DFF", swapped_concatenation),
    ("SaliencyMLPblock", without_mixer_norm),
    ("SaliencyMLPblock", relu_slope),
    ("Convblock", relu_slope),
]


@pytest.mark.parametrize(("name", "mistake"), MISTAKES, ids=lambda value: getattr(value, "__name__", value))
def test_planted_mistakes_are_caught(name: str, mistake: Callable[[nn.Module], None]) -> None:
    assert unit_error(name, mistake) > TOLERANCE


def whole_network_error(network: nn.Module, image: Tensor, scale: float = 1.0) -> float:
    """How far the network's logits are from those of the second implementation, at the worst level."""
    with torch.no_grad():
        logits = network(image * scale)
    wanted = reference.dnet(network.state_dict(), image * scale, SMALL["depths"])
    assert len(logits) == len(wanted) == 5
    return max(float((a - b).abs().max()) for a, b in zip(logits, wanted, strict=True))


def test_the_whole_network_agrees_with_a_second_implementation() -> None:
    network = randomise(small(deep_supervision=True))
    assert whole_network_error(network, random_image(2, 2, 32, 64, 32)) <= TOLERANCE


def test_a_wrong_epsilon_and_a_missing_norm_are_caught_in_the_whole_network() -> None:
    image = random_image(1, 2, 32, 32, 32)
    network = randomise(small(deep_supervision=True))
    for norm in each(network, ChannelLayerNorm):
        norm.eps = 1e-5
    # faint maps, as a trained network has them at times, are where the epsilon shows
    with torch.no_grad():
        network.encoder.downsample_layers[0].weight.mul_(1e-2)
        network.encoder.downsample_layers[0].bias.mul_(1e-2)
    assert whole_network_error(network, image) > TOLERANCE
    network = randomise(small(deep_supervision=True))
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.decoder.norm_layers[0] = nn.Identity()
    with torch.no_grad():
        spoilt = network(image)[0]
    assert float((spoilt - reference.dnet(weights, image, SMALL["depths"])[0]).abs().max()) > TOLERANCE


def test_per_kernel_selection_is_a_forward_switch_over_the_same_weights() -> None:
    image = random_image(1, 2, 32, 32, 32)
    network = randomise(small())
    ours = small(selection="per_kernel").eval()
    ours.load_state_dict(network.state_dict())
    with torch.no_grad():
        published, selected = network(image), ours(image)
    assert_close(selected, reference.dnet(network.state_dict(), image, SMALL["depths"], per_kernel=True)[0])
    assert float((published - selected).abs().max()) > TOLERANCE


def test_deep_supervision_adds_outputs_and_changes_none() -> None:
    image = random_image(1, 2, 32, 64, 32)
    network = randomise(small())
    with torch.no_grad():
        alone = network(image)
        network.deep_supervision = True
        logits = network(image)
    assert torch.equal(alone, logits[0])
    assert [tuple(level.shape[2:]) for level in logits] == [
        (32 // n, 64 // n, 32 // n) for n in (1, 2, 4, 8, 16)
    ]


def test_untrained_blocks_are_inert() -> None:
    network = small().eval()
    image = random_image(1, 2, 32, 32, 32)
    with torch.no_grad():
        before = network(image)
        for block in each(network, DynamicLargeKernelBlock):
            block.layer_scale.zero_()
        after = network(image)
    assert float((before - after).abs().max()) <= 1e-5 * float(before.abs().max())


def test_training_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    network = small(deep_supervision=True, layer_scale=1e-2, drop_path_rate=0.1).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
    image = random_image(2, 2, 32, 32, 32)
    for _ in range(3):
        optimiser.zero_grad()
        loss = sum(level.square().mean() for level in network(image))
        loss.backward()
        optimiser.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_separate_salience_norm_starts_from_the_published_one() -> None:
    image = random_image(1, 2, 32, 32, 32)
    published = randomise(small())
    ours = small(salience_norm="separate").eval()
    networks.load_official(ours, published.state_dict())
    with torch.no_grad():
        assert torch.equal(published(image), ours(image))


def test_sizes_it_cannot_take_are_refused_with_the_multiple() -> None:
    network = small().eval()
    with pytest.raises(InputError, match=r"40×32×16.*multiples of 32, at least 32.*64×32×32"):
        network(random_image(1, 2, 40, 32, 16))
    with pytest.raises(InputError, match="in_channels=2"):
        network(random_image(1, 3, 32, 32, 32))
    with pytest.raises(InputError, match="5 entries|has 3 entries"):
        small(depths=(1, 1, 1))
    with pytest.raises(InputError, match="multiple of 2"):
        small(feature_sizes=(4, 6, 8, 10, 13))
