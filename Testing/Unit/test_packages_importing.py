"""Importing checkpoints: the network and its form are read off the tensors, and not one bit of them changes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402
from networks_support import published_keys, randomise  # noqa: E402

from LKSegmentLib import networks, packages  # noqa: E402
from LKSegmentLib.errors import InputError  # noqa: E402
from LKSegmentLib.networks.lka_unet import ATTENTION  # noqa: E402
from LKSegmentLib.packages import recognition, weight_checks  # noqa: E402
from LKSegmentLib.packages.importing import Imported, import_checkpoint  # noqa: E402

THREE = "background,liver,spleen"
DNET = {"in_channels": 1, "out_channels": 3, "depths": [1, 2], "feature_sizes": [4, 6]}
REP3D = {
    "in_channels": 1,
    "out_channels": 3,
    "depths": [1, 1, 1, 1],
    "feature_sizes": [4, 6, 8, 10],
    "hidden_size": 12,
    "kernel_size": 7,
}
DALIGHT = {"in_channels": 2, "out_channels": 3, "base_filters": 8, "num_stages": 3, "bottleneck_channels": 24}
CLICK = {"in_channels": 11, "out_channels": 1, "feature_sizes": [8, 8, 16], "depths": [1, 1, 2]}
TINY: list[tuple[str, dict[str, Any]]] = [
    ("dnet", DNET),
    ("dlknetr", {"in_channels": 2, "out_channels": 3, "depths": [1, 2, 1, 1, 2], "feature_sizes": [4, 4, 6, 6, 8]}),
    ("rep3d", {**REP3D, "deploy": True}),
    ("dalight3d", DALIGHT),
    ("lka_unet", {"in_channels": 1, "out_channels": 3, "variant": "full", "feature_sizes": [4, 4, 4, 4, 8, 16]}),
    ("lk_click", CLICK),
]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *TINY,
    ("dnet", {**DNET, "in_channels": 4, "salience_norm": "separate"}),
    ("dlknetr", {"in_channels": 1, "out_channels": 2, "deep_supervision": True}),
    ("rep3d", {**REP3D, "deploy": False, "lrbm": "per_channel", "learn_beta": True}),
    ("dalight3d", {"in_channels": 4, "out_channels": 4}),
    ("dalight3d", {**DALIGHT, "num_stages": 5, "bottleneck_channels": None, "max_channels": 16, "ssfb_rank": 3}),
    ("dalight3d", {**DALIGHT, "separable": False, "icn": False, "csa": False, "ssfb": False, "evidential": True}),
    ("dalight3d", {**DALIGHT, "num_stages": 2}),
    ("lka_unet", {"in_channels": 4, "out_channels": 3, "variant": "base"}),
    ("lka_unet", {"in_channels": 1, "out_channels": 7}),
    ("lka_unet", {"feature_sizes": [8, 8, 16], "attention": {0: (15, 3), 1: (6, 2)}}),
    ("msa2net", {"in_channels": 1, "out_channels": 9}),
    ("msa2net", {"variant": "small", "candidates": [3, 5, 7, 9], "dense": True, "auxiliary": False}),
]


def built(name: str, options: Mapping[str, Any], seed: int = 3) -> Any:
    return randomise(networks.create(name, **options), seed)


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def imported(tmp_path: Path, content: Any, labels: Any = THREE, **more: Any) -> Imported:
    return import_checkpoint(saved(tmp_path / "weights.pth", content), labels, tmp_path / "package", **more)


def refused(tmp_path: Path, content: Any, labels: Any = THREE, **more: Any) -> str:
    """The sentence of an import that must fail and leave nothing behind."""
    with pytest.raises(InputError) as caught:
        imported(tmp_path, content, labels, **more)
    assert [path.name for path in tmp_path.iterdir() if path.suffix not in (".pth", ".json")] == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_the_constructor_values_are_in_names_and_shapes(name: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        source = networks.create(name, **options)
    tensors = dict(source.state_dict())
    if name == "rep3d":
        tensors["lrbm_baked"] = torch.tensor(source.deploy)
    found = recognition.recognised(tensors, None, "The checkpoint")
    assert found is not None and found.network == name
    values = recognition.settled_options(found, {}, "The checkpoint")
    with torch.device("meta"):
        again = networks.create(name, **json.loads(json.dumps(values)))
    shapes = [{key: tensor.shape for key, tensor in net.state_dict().items()} for net in (source, again)]
    assert shapes[0] == shapes[1]
    assert not set(found.options) & set(found.unseen)
    for option, value in options.items():
        if option in found.options and value is not None and option != "max_channels":
            assert json.dumps(found.options[option]) == json.dumps(value), option


@pytest.mark.parametrize(
    ("file", "name", "classes"),
    [
        ("dnet_full_in1_out16", "dnet", 16),
        ("dlknetr_full_in1_out16_ds", "dlknetr", 16),
        ("rep3d_full_in1_out16", "rep3d", 16),
        ("dalight3d_full_in4_out4", "dalight3d", 4),
    ],
)
def test_published_layouts_are_recognised_with_the_published_values(file: str, name: str, classes: int) -> None:
    tensors = {key: torch.empty(shape, device="meta") for key, shape in published_keys(file)}
    found = recognition.recognised(tensors, None, "The checkpoint")
    assert found is not None and (found.network, found.out_channels) == (name, classes)
    defaults = {option: about["default"] for option, about in networks.options(name).items()}
    defaults |= {"bottleneck_channels": 432} if name == "dalight3d" else {}
    read_off = {option: value for option, value in found.options.items() if option != "deep_supervision"}
    assert {option: json.dumps(value) for option, value in read_off.items()} == {
        option: json.dumps(defaults[option]) for option in read_off
    }


def test_the_form_of_2024_and_a_bare_encoder_are_named_for_what_they_are(tmp_path: Path) -> None:
    tensors = {key: torch.zeros(1, 1) for key, _ in published_keys("dnet_2024v1_full_in1_out16")}
    assert "March 2024" in refused(tmp_path, tensors)
    assert "CSWin" in refused(tmp_path, {"stage1_conv_embed.0.weight": torch.zeros(64, 3, 7, 7)})


@pytest.mark.parametrize(("name", "options"), TINY)
def test_the_round_trip_is_bit_exact(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    source = built(name, options)
    official = networks.export_official(source)
    done = imported(tmp_path, official, None if name == "lk_click" else THREE)
    package = packages.load(done.folder)
    assert package.manifest.network == name and package.manifest.kind == ("click" if name == "lk_click" else "volume")
    again = networks.export_official(package.network())
    assert list(again) == list(official)
    for key, tensor in official.items():
        assert tensor.dtype == again[key].dtype and torch.equal(tensor, again[key]), key
    image = torch.randn(1, options["in_channels"], 32, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(source(image), package.network()(image), atol=1e-5)


def nnunet(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """As nnU-Net v2 saves, numbers of numpy in its log and an optimizer's state included."""
    return {
        "network_weights": {f"_orig_mod.module.{key}": value for key, value in tensors.items()},
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        "logging": {"mean_fg_dice": [np.float64(0.5)], "lrs": [np.float32(0.1)], "curve": np.arange(3.0)},
        "_best_ema": np.float64(0.7),
        "init_args": {"fold": 0, "device": torch.device("cuda")},
        "trainer_name": "nnUNetTrainer",
    }


@pytest.mark.parametrize(
    "wrap",
    [
        nnunet,
        lambda tensors: {"state_dict": {f"model.{key}": value for key, value in tensors.items()}, "epoch": 3},
        lambda tensors: {"model": tensors, "optimizer": {}},
        lambda tensors: {"weights of our own kind": tensors, "step": 3},
        lambda tensors: {f"module.{key}": value for key, value in tensors.items()},
        lambda tensors: {key: value.numpy() for key, value in tensors.items()},
    ],
    ids=["nnU-Net v2", "Lightning", "model", "sole entry", "parallel", "numpy"],
)
def test_wrappers_are_taken_off(wrap: Any, tmp_path: Path) -> None:
    tensors = dict(built("dnet", DNET).state_dict())
    network = packages.load(imported(tmp_path, wrap(tensors)).folder).network()
    assert all(torch.equal(network.state_dict()[key], value) for key, value in tensors.items())


def test_safetensors_and_half_precision_are_read(tmp_path: Path) -> None:
    tensors = {key: value.half() if value.is_floating_point() else value
               for key, value in built("dnet", DNET).state_dict().items()}  # fmt: skip
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(tensors, path)
    network = packages.load(import_checkpoint(path, THREE, tmp_path / "package.zip").folder).network()
    assert all(torch.equal(network.state_dict()[key], value.to(network.state_dict()[key].dtype))
               for key, value in tensors.items())  # fmt: skip


def test_one_of_several_sets_of_weights_is_chosen(tmp_path: Path) -> None:
    sets = {name: dict(built("dnet", DNET, seed).state_dict()) for seed, name in enumerate(("network", "average"))}
    assert "network, average" in refused(tmp_path, sets)
    assert "no set of weights called" in refused(tmp_path, sets, entry="best")
    network = packages.load(imported(tmp_path, sets, entry="average").folder).network()
    key = "decoder.output_layer.weight"
    assert torch.equal(network.state_dict()[key], sets["average"][key])


def test_what_does_not_agree_is_refused_with_the_first_names(tmp_path: Path) -> None:
    tensors = dict(built("dnet", DNET).state_dict())
    first = next(iter(tensors))
    sentence = refused(tmp_path, tensors, network="rep3d")
    assert '"dnet" and not of "rep3d"' in sentence and first in sentence
    assert "no network" in refused(tmp_path, tensors, network="unet")
    sentence = refused(tmp_path, {"conv.weight": torch.zeros(2, 2), "conv.bias": torch.zeros(2)}, network="dnet")
    assert "conv.weight, conv.bias" in sentence and "dnet" in sentence
    assert "depths=[1, 2]" in refused(tmp_path, tensors, options={"depths": [2, 2]})
    assert "out_channels=3" in refused(tmp_path, tensors, options={"out_channels": 4})
    assert 'no option "depth"' in refused(tmp_path, tensors, options={"depth": 1})
    assert "selection" in refused(tmp_path, tensors, options={"selection": "best"})
    missing = {key: value for key, value in tensors.items() if key != "encoder.saliency.mlp.fc1.bias"}
    assert "missing: encoder.saliency.mlp.fc1.bias" in refused(tmp_path, missing)
    assert "not in the network: extra.weight" in refused(tmp_path, {**tensors, "extra.weight": torch.zeros(2)})
    headless = {key: value for key, value in tensors.items() if not key.startswith("decoder.output_layer")}
    assert "decoder.output_layer.weight" in refused(tmp_path, headless)


def test_a_file_that_claims_a_giant_network_builds_none(tmp_path: Path) -> None:
    tensors = dict(built("dnet", DNET).state_dict())
    tensors["encoder.norm_layers.1.weight"] = torch.ones(4096)
    assert "incomplete" in refused(tmp_path, tensors)


def test_what_no_tensor_tells_is_said_and_can_be_given(tmp_path: Path) -> None:
    tensors = dict(built("dnet", DNET).state_dict())
    done = imported(tmp_path, tensors)
    assert done.unseen == {"selection": "sum"} and done.manifest.options["selection"] == "sum"
    assert any("selection=sum" in warning for warning in done.warnings)
    done = imported(tmp_path, tensors, options={"selection": "per_kernel"}, overwrite=True)
    assert done.unseen == {} and packages.load(done.folder).manifest.options["selection"] == "per_kernel"


def test_rep3d_is_raw_or_baked_by_its_own_mark_and_baked_without_one(tmp_path: Path) -> None:
    raw = built("rep3d", {**REP3D, "lrbm": "fixed"})
    assert "lrbm=fixed, lrbm=none" in refused(tmp_path, raw.state_dict())
    done = imported(tmp_path, raw.state_dict(), options={"lrbm": "fixed"})
    assert done.manifest.options["deploy"] is False
    assert "deploy=False" in refused_elsewhere(tmp_path, raw.state_dict(), options={"deploy": True})
    torn = {**raw.state_dict(), "lrbm_baked": torch.zeros(2)}
    assert "lrbm_baked (2 instead of scalar)" in refused_elsewhere(tmp_path, torn)
    done = imported(tmp_path, networks.export_official(raw), overwrite=True)
    assert done.manifest.options["deploy"] is True and done.unseen == {"deploy": True}
    assert any("deploy=false" in warning for warning in done.warnings)  # the kernels look raw, and are
    done = imported(tmp_path, networks.export_official(raw.bake()), overwrite=True)
    assert not any("deploy=false" in warning for warning in done.warnings)


def test_the_fall_of_kernels_from_their_centre_is_measured() -> None:
    network = networks.create("rep3d", **{**REP3D, "lrbm": "fixed", "kernel_size": 11})
    kernels = [block.dwconv.weight for block in network.blocks().values()]
    assert weight_checks.centre_slope(kernels) == pytest.approx(0, abs=0.15)
    network.bake()
    assert weight_checks.centre_slope(kernels) == pytest.approx(1, abs=0.15)
    assert weight_checks.centre_slope([]) is None


def test_suspicious_weights_are_imported_with_a_warning(tmp_path: Path) -> None:
    network = built("rep3d", {**REP3D, "deploy": True})
    block = next(iter(network.blocks().values()))
    centre = block.dwconv.weight[:, :, 3, 3, 3].clone()
    block.dwconv.weight.data.mul_(1e-9)
    block.dwconv.weight.data[:, :, 3, 3, 3] = centre
    network.out.conv.conv.weight.data.zero_()
    warnings = imported(tmp_path, network.state_dict()).warnings
    assert any("1 of 4 large kernels have collapsed" in warning for warning in warnings)
    assert any("out.conv.conv.weight" in warning and "all zero" in warning for warning in warnings)


def test_untrained_defaults_of_dalight3d_are_noticed_and_averaged_on_request(tmp_path: Path) -> None:
    network = networks.create("dalight3d", **DALIGHT)
    tables = [tensor for name, tensor in network.state_dict().items() if "scanner_gamma" in name]
    for tensor in tables:
        tensor.copy_(torch.rand(tensor.shape) + 0.5)
    done = imported(tmp_path, network.state_dict())
    assert any("--average-identifiers" in warning for warning in done.warnings)
    done = imported(tmp_path, network.state_dict(), average_identifiers=True, overwrite=True)
    assert not any("--average-identifiers" in warning for warning in done.warnings)
    found = packages.load(done.folder).network().state_dict()["encoder.stages.0.norm1.default_gamma"]
    assert torch.equal(found, tables[0].mean(0))
    assert "DALight-3D" in refused_elsewhere(tmp_path, built("dnet", DNET).state_dict(), average_identifiers=True)


def refused_elsewhere(tmp_path: Path, content: Any, **more: Any) -> str:
    folder = tmp_path / "elsewhere"
    folder.mkdir(exist_ok=True)
    return refused(folder, content, **more)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    tensors = dict(built("dnet", DNET).state_dict())
    name = "encoder.saliency.mlp.fc2.bias"
    tensors[name][2] = value
    assert name in refused(tmp_path, tensors) and "not finite" in refused(tmp_path, tensors)


def test_statistics_that_make_the_answer_not_finite_are_refused(tmp_path: Path) -> None:
    tensors = dict(built("dnet", DNET).state_dict())
    tensors["encoder.saliency.norm_layer.running_var"].fill_(-1)
    assert "answers noise with values that are not finite" in refused(tmp_path, tensors)


def test_a_network_without_a_signature_is_tried_by_its_name(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    options = {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}
    tensors = built("monai_segresnet", {**options, "in_channels": 2, "out_channels": 3}).state_dict()
    assert "recognised are" in refused(tmp_path, tensors)
    done = imported(tmp_path, tensors, "liver,spleen", network="monai_segresnet", options=options)
    assert (done.manifest.in_channels, done.manifest.out_channels, done.manifest.kind) == (2, 3, "volume")
    network = packages.load(done.folder).network()
    assert all(torch.equal(network.state_dict()[key], value) for key, value in tensors.items())
    assert "do not fit" in refused_elsewhere(tmp_path, tensors, network="monai_segresnet")


def test_double_precision_is_rounded_and_said(tmp_path: Path) -> None:
    tensors = {key: value.double() if value.is_floating_point() else value
               for key, value in built("dnet", DNET).state_dict().items()}  # fmt: skip
    done = imported(tmp_path, tensors)
    assert any("double precision" in warning for warning in done.warnings)
    assert packages.load(done.folder).network().state_dict()["decoder.output_layer.bias"].dtype == torch.float32


def test_an_existing_package_is_replaced_only_on_request(tmp_path: Path) -> None:
    imported(tmp_path, built("dnet", DNET).state_dict())
    before = (tmp_path / "package" / "model.json").read_bytes()
    with pytest.raises(InputError, match="already"):
        imported(tmp_path, built("dnet", DNET, seed=9).state_dict())
    assert (tmp_path / "package" / "model.json").read_bytes() == before
    imported(tmp_path, built("dnet", DNET, seed=9).state_dict(), overwrite=True, name="other")
    assert packages.verify(tmp_path / "package").name == "other"


def test_without_a_folder_the_package_becomes_an_installed_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LKSEGMENT_MODELS", str(tmp_path / "models"))
    path = saved(tmp_path / "best metric.pth", built("dnet", DNET).state_dict())
    done = import_checkpoint(path, THREE, licence="CC-BY-4.0")
    manifest = packages.load("best_metric").manifest
    assert done.folder == tmp_path / "models" / "best_metric" and manifest.licence == "CC-BY-4.0"
    assert manifest.extra["imported"]["file"] == "best metric.pth"
    assert "2403.10674" in manifest.citation
    assert not any("--licence" in warning for warning in done.warnings)


def test_attention_of_the_published_variants_is_told_apart() -> None:
    for variant in ATTENTION:
        with torch.device("meta"):
            source = networks.create("lka_unet", variant=variant)
        found = recognition.recognised(source.state_dict(), "lka_unet", "The checkpoint")
        assert found is not None and found.options["variant"] == variant and "attention" not in found.options


PAGE = Path(__file__).resolve().parents[2] / "docs" / "import.md"


@pytest.mark.parametrize("name", recognition.SIGNATURES)
def test_the_page_says_what_is_read_off_and_what_is_taken(name: str) -> None:
    with torch.device("meta"):
        source = networks.create(name)
    tensors = {key: tensor for key, tensor in source.state_dict().items() if key != "lrbm_baked"}
    found = recognition.recognised(tensors, None, "The checkpoint")
    assert found is not None
    row = re.search(rf"^\| `{name}` \| (.*?) \| (.*?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None
    options = set(networks.options(name))
    assert set(found.options) <= set(re.findall(r"\w+", row[1])) & options
    taken = dict(re.findall(r"(\w+) \(`?(\w+)`?\)", row[2]))
    assert taken == {option: str(value).lower() for option, value in found.unseen.items()}
