"""What `lksegment bench networks` compares is the same computation twice. (How fast is no matter of tests.)"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from LKSegmentLib import networks
from LKSegmentLib.cli import bench_speed
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.evaluation import speed, speed_report
from LKSegmentLib.evaluation.plain_path import plain_path
from LKSegmentLib.inference import devices

NETWORKS = [
    ("dnet", {"feature_sizes": (4, 6, 8), "depths": (1, 1, 1), "layer_scale": 0.5}),
    ("lka_unet", {"feature_sizes": (8, 8, 16), "attention": {0: (9, 3)}}),
    ("rep3d", {"feature_sizes": (4, 4, 6, 8), "hidden_size": 8, "depths": (1, 1, 1, 1), "kernel_size": 15}),
]


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_plain_path_gives_the_same_logits_by_the_librarys_own_convolutions(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = networks.create(name, in_channels=1, out_channels=2, **options).eval()
    image = torch.randn(1, 1, 32, 32, 48)
    with torch.inference_mode():
        ours = network(image)
        with plain_path(network) as plain, profile(activities=[ProfilerActivity.CPU]) as record:
            expected = plain(image)
        assert torch.equal(network(image), ours), "the network is not what it was before"
    # Two orders of summation in single precision: rounding grows with the largest logit, here up to 7.
    assert float((ours - expected).abs().max()) < 5e-6 * float(expected.abs().max())
    called = {event.name for event in record.events()}
    assert "aten::conv3d" in called
    assert not called & {"aten::linear", "aten::fft_rfftn", "mkldnn::_convolution_pointwise"}


def test_plain_dnet_runs_its_auxiliary_heads() -> None:
    network = networks.create("dnet", in_channels=1, out_channels=2, **NETWORKS[0][1]).eval()
    calls: list[int] = []
    network.decoder.seg_layers[0].register_forward_hook(lambda *_: calls.append(1))
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.inference_mode():
        network(image)
        assert calls == []
        with plain_path(network) as plain:
            plain(image)
    assert calls == [1]
    assert network.deep_supervision is False


def test_measuring_in_a_fresh_process_gives_figures_that_fit_together() -> None:
    case = speed.OperatorCase(4, 12, 5, 2, ratio=1.0)
    found = speed.measure_operator(case, repeats=1)
    assert found["ratio"] == pytest.approx(found["plain_s"] / found["ours_s"])
    assert 0 < found["ours_error"] < 1e-5 and 0 < found["plain_error"] < 1e-5
    row = {"case": {"channels": 4, "size": 12, "kernel": 5, "dilation": 2, "ratio": 1.0}, **found}
    assert "| 5³, dilation 2 | 4 | 12³ |" in speed_report.of_operators([row])


def test_on_another_device_every_method_is_measured_and_auto_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "triton" else find(name, *of))
    dense, dilated = (  # a name of the CPU that is not "cpu"
        {"case": asdict(case), **speed.measure_operator(case, repeats=1, device="cpu:0")}
        for case in (speed.OperatorCase(2, 8, 5), speed.OperatorCase(2, 8, 5, 2))
    )
    assert list(dense["methods_s"]) == ["plain", "auto", "direct", "fft"]
    assert list(dilated["methods_s"]) == ["plain", "auto", "direct"]
    assert dense["ours_s"] == dense["methods_s"]["auto"] and dense["ours_error"] == dense["methods_error"]["auto"]
    table = speed_report.of_methods([dilated, dense]).splitlines()
    assert table[0] == "| kernel | channels | map | plain | auto | direct | fft | error, plain | auto | direct | fft |"
    assert len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| 5³, dilation 2 | 2 | 8³ | ") and table[2].endswith(" |  |")


def test_the_page_says_of_other_devices_what_its_generator_says() -> None:
    page = (Path(speed.__file__).parents[2] / "docs" / "speed.md").read_text(encoding="utf-8")
    title = "## Other devices"
    assert page.split(title)[1] == speed_report._PAGE.split(title)[1]


BLOCK = """
import torch
from LKSegmentLib.evaluation.speed import MemoryWatch
with MemoryWatch() as watch:
    block = torch.ones(40 * 2**18)  # 40 MiB
    torch.mm(torch.ones(800, 800), torch.ones(800, 800))
    assert float(block[-1]) == 1
print(watch.peak_mib)
"""


def test_memory_of_a_block_is_seen() -> None:
    """In a fresh process, as the bench measures: one that has run before fills memory that it holds already."""
    done = subprocess.run([sys.executable, "-c", BLOCK], capture_output=True, text=True, check=True, timeout=120)
    assert 30 < float(done.stdout) < 400


def test_a_measurement_that_fails_says_why() -> None:
    with pytest.raises(RunError, match="no network called"):
        speed.measure_network(speed.NetworkCase("none", "no_such_network", {}), repeats=1)


def test_the_gpu_is_measured_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(devices, "resolve_device", lambda name: asked.append(name) or "cuda" * (name == "auto") or name)
    monkeypatch.setattr(speed, "NETWORK_CASES", ())
    arguments = Namespace(markdown=None, device="auto", part="networks", repeats=1)
    assert bench_speed.run(arguments, Screen(as_json=True))["machine"]["device"] == "cpu" and asked == ["cpu"]
    arguments.device, arguments.part = "cuda", "inspection"
    with pytest.raises(InputError, match="on the CPU"):
        bench_speed.run(arguments, Screen(as_json=True))


def test_what_is_promised_on_the_cpu_is_not_promised_elsewhere() -> None:
    for case in (speed.NETWORK_CASES[0], speed.OPERATOR_CASES[0]):
        assert speed.promised(case, "cpu")["ratio"] == case.ratio is not None
        there = speed.promised(case, "cuda:0")
        assert there.keys() == speed.promised(case, "cpu").keys()
        assert [there.get(key) for key in ("ratio", "rate", "memory")] == [None] * 3
