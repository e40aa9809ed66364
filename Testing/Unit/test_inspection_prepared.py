"""Recording in the prepared form: the same answer to the last bit, the plain form's quantities, no second run."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from inspection_support import tiny  # noqa: E402
from networks_support import random_image, randomise  # noqa: E402

from LKSegmentLib import networks  # noqa: E402
from LKSegmentLib.inspection.by_network import exposed  # noqa: E402
from LKSegmentLib.inspection.exposed import Chosen, Exposed, choose  # noqa: E402
from LKSegmentLib.inspection.recording import Taps  # noqa: E402
from LKSegmentLib.networks import prepare_for_inference  # noqa: E402
from LKSegmentLib.networks.prepared.listening import Told, heard, listen, tell  # noqa: E402

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("dnet", {}),
    ("dnet", {"selection": "per_kernel"}),
    ("dlknetr", {}),
    ("lka_unet", {"variant": "mid"}),
    ("lka_unet", {"variant": "full"}),
    ("lk_click", {}),
    ("rep3d", {}),
    ("dalight3d", {}),
]
THIN = (
    "LKSegmentLib.operators.slabs.SLAB_BYTES",
    "LKSegmentLib.operators.depthwise_cpu.SLAB_BYTES",
    "LKSegmentLib.operators.depthwise_cpu._ONE_SLAB_BYTES",
)


def made(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """A tiny network and an image for it."""
    if name == "lk_click":
        click = networks.create(name, feature_sizes=(8, 16, 16), depths=(1, 1, 1), **options)
        return randomise(click).requires_grad_(False), random_image(1, 12, 32, 32, 32)
    return tiny(name, **options), random_image(1, 1, 32, 32, 32)


def drawable(network: Any) -> list[Chosen]:
    """Everything the network exposes, a channel of it where the mean means nothing."""
    return [Chosen(entry, None if entry.summary else 0) for entry in exposed(network)]


@pytest.mark.parametrize("thin", [False, True], ids=["whole", "in thin slabs"])
@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=[f"{name} {options or ''}" for name, options in NETWORKS])
def test_the_prepared_form_records_what_the_plain_form_does_and_answers_the_same(
    name: str, options: dict[str, Any], thin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant in THIN if thin else ():  # as if the maps were large
        monkeypatch.setattr(constant, 1)
    network, image = made(name, options)
    chosen = drawable(network)
    with torch.inference_mode():
        with Taps(network, chosen) as plain:
            plain.start()
            network(image)
        with prepare_for_inference(network):
            untapped = network(image)
            with Taps(network, chosen) as taps:
                silent = network(image)
                taps.start()
                tapped = network(image)
    assert torch.equal(untapped, tapped) and torch.equal(untapped, silent)
    assert plain.runs_again == 0
    assert taps.values.keys() == plain.values.keys() == {entry.name for entry in chosen}
    for key, expected in plain.values.items():
        assert taps.values[key].shape == expected.shape
        assert abs(taps.values[key] - expected).max() <= 1e-4, key


@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=[f"{name} {options or ''}" for name, options in NETWORKS])
def test_no_network_is_run_a_second_time_for_what_is_shown_by_default(name: str, options: dict[str, Any]) -> None:
    network, image = made(name, options)
    chosen = choose(exposed(network), None, name)
    with torch.inference_mode(), prepare_for_inference(network), Taps(network, chosen) as taps:
        for _ in range(2):
            taps.start()
            network(image)
    assert taps.runs_again == 0 and taps.values.keys() == {entry.name for entry in chosen}


def test_what_a_prepared_form_does_not_tell_is_read_from_a_second_run_of_the_ordinary_one() -> None:
    network, image = made("dnet", {})
    layer = "decoder.final_layer.conv1"
    entry = Exposed("inside", (layer,), lambda outputs: outputs[0][0], {}, channels=4)
    seen: list[Any] = []
    with torch.inference_mode():
        handle = network.get_submodule(layer).register_forward_hook(lambda module, given, output: seen.append(output))
        network(image)
        handle.remove()
        with prepare_for_inference(network), Taps(network, [Chosen(entry, 1)]) as taps:
            taps.start()
            network(image)
    assert taps.runs_again == 1
    assert abs(taps.values["inside #1"] - seen[0][0, 1].numpy()).max() <= 1e-6


def test_where_nobody_listens_nothing_is_kept() -> None:
    module = torch.nn.Sigmoid()
    told = Told(module, 4)
    told.add(torch.ones(4, 2, 2, 3))
    assert not heard(module) and told._whole is None
    heard_of: list[Any] = []
    listening = listen(module, heard_of.append)
    told = Told(module, 4)
    slab = torch.arange(24.0).view(2, 2, 2, 3)
    told.add(slab)
    slab.zero_()  # a form goes on in the same memory
    assert not heard_of, "half of it is not the module's output"
    told.add(slab)
    assert heard_of[0].shape == (1, 3, 4, 2, 2) and float(heard_of[0].sum()) == 23 * 12
    listening.remove()
    listening.remove()
    tell(module, slab)
    assert len(heard_of) == 1 and not heard(module)


def test_taps_listen_only_while_they_record() -> None:
    network, image = made("lka_unet", {"variant": "mid"})
    gate = network.lk["2"].gate
    with Taps(network, choose(exposed(network), None, "tiny")) as taps:
        assert not heard(gate)
        taps.start()
        assert heard(gate)
        taps.stop()
        assert not heard(gate)
        taps.start()
    assert not heard(gate)
