"""How fast networks and operators run here, against plain torch in the same run.

Everything is measured in a fresh process (`python -m LKSegmentLib.evaluation.speed …` prints JSON), plain and ours
in turns, so that both meet the same state of the machine; medians are reported. Peak memory is that of processes
that run one of the two only. Times depend on the machine, ratios less so. On a GPU one process measures everything:
the memory there can be told apart, and a process takes longer to begin than what is measured.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from LKSegmentLib.errors import RunError

_MATRIX = 2048  # edge of the product that tells the machine's rate


@dataclass(frozen=True)
class NetworkCase:
    """A network to measure and what the project promises of it.

    Attributes:
        title: for the table.
        name: as in `networks.names()`.
        options: of its constructor.
        size: of the image, (k, j, i); batch 1.
        out_channels: classes.
        ratio: least ratio of the plain time to ours; None where nothing is promised.
        rate: least share of the machine's matrix-product rate.
        memory: largest share of the plain path's peak memory.
    """

    title: str
    name: str
    options: dict[str, Any]
    size: tuple[int, int, int] = (96, 96, 96)
    out_channels: int = 16
    ratio: float | None = None
    rate: float | None = None
    memory: float | None = None


NETWORK_CASES = (
    NetworkCase("D-Net", "dnet", {}, ratio=2.5, rate=0.65, memory=0.5),
    NetworkCase("LK U-Net mid", "lka_unet", {"variant": "mid"}, out_channels=7, ratio=1.7, rate=0.65),
    NetworkCase("LK U-Net full", "lka_unet", {"variant": "full"}, out_channels=7, ratio=3.0),
    NetworkCase("Rep3D, 64³", "rep3d", {}, size=(64, 64, 64)),
)


@dataclass(frozen=True)
class OperatorCase:
    """A depth-wise convolution of `channels` channels on a map of edge `size`."""

    channels: int
    size: int
    kernel: int
    dilation: int = 1
    ratio: float | None = None


OPERATOR_CASES = (
    OperatorCase(48, 48, 7, 3, ratio=20.0),
    OperatorCase(64, 32, 7, 3),
    OperatorCase(128, 24, 7, 3),
    OperatorCase(32, 96, 7, 3),
    OperatorCase(48, 48, 5),
    OperatorCase(32, 96, 5),
    OperatorCase(48, 48, 21),
    OperatorCase(96, 24, 21),
)


def measure_network(case: NetworkCase, repeats: int, device: str = "cpu") -> dict[str, Any]:
    """Measure in fresh processes, on a GPU in this one; see `_network` and `_peak` for what comes back.

    Raises:
        RunError: a process failed.
    """
    given = (case.name, json.dumps(case.options), json.dumps(case.size), str(case.out_channels))
    here = device != "cpu"
    times = _network(*given, str(repeats), device) if here else in_process(__name__, "network", *given, str(repeats))
    found = dict(times)
    for path in ("plain", "ours"):
        peak = _peak_there(*given, path, device) if here else in_process(__name__, "peak", *given, path)
        found[f"{path}_peak_mib"] = peak["peak_mib"]
    found["ratio"] = found["plain_s"] / found["ours_s"]
    found["share_of_matrix_rate"] = found["ours_gflops"] / found["matrix_gflops"]
    found["share_of_memory"] = found["ours_peak_mib"] / found["plain_peak_mib"]
    return found


def measure_operator(case: OperatorCase, repeats: int, device: str = "cpu") -> dict[str, Any]:
    """Measure in a fresh process, on a GPU in this one; see `_operator` for what comes back.

    Raises:
        RunError: the process failed.
    """
    words = (str(case.channels), str(case.size), str(case.kernel), str(case.dilation), str(repeats))
    return in_process(__name__, "operator", *words, device) if device == "cpu" else _operator(*words, device)


def promised(case: Any, device: str) -> dict[str, Any]:
    """A case as a table's row holds it: what the project promises holds on the CPU only."""
    told = asdict(case)
    return told if device == "cpu" else {**told, **dict.fromkeys({"ratio", "rate", "memory"} & set(told))}


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    return {
        "graphics": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "torch": str(torch.__version__),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def in_process(module: str, *words: str) -> dict[str, Any]:
    """What a module of measurements prints for these words, run in a process of its own. RunError when it failed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(f"A measurement ({' '.join(words[:2])}) failed: {reason}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _network(
    name: str, options: str, size: str, out_channels: str, repeats: str, device: str = "cpu"
) -> dict[str, Any]:
    """Median seconds and GFLOP/s of both paths, the matrix-product rate, and the largest difference."""
    import torch

    from LKSegmentLib.evaluation.plain_path import plain_path
    from LKSegmentLib.networks import create, prepare_for_inference
    from LKSegmentLib.networks.counting import count_macs

    how = json.loads(options)
    with torch.device("meta"):
        # The auxiliary heads are no part of the work that both paths must do.
        flop = 2 * count_macs(create(name, in_channels=1, out_channels=int(out_channels), **how), 1, json.loads(size))
    network, image = made(name, how, json.loads(size), int(out_channels), device)
    ways: dict[str, Callable[[Any], Any]] = {"plain": plain_path, "ours": prepare_for_inference}
    with torch.inference_mode():
        with plain_path(network) as plain:
            expected = plain(image)
        with prepare_for_inference(network) as fast:
            difference = float((fast(image) - expected).abs().max())
        largest = float(expected.abs().max())
        del expected
        times: dict[str, list[float]] = {"plain": [], "ours": [], "matrix": []}
        for _ in range(int(repeats)):
            times["matrix"] += _matrix_times(2, device)
            for path, way in ways.items():  # a way is entered here, not before: each changes the network
                with way(network) as run:
                    run(image)  # the first of many windows: packs weights, gets memory
                    times[path].append(_seconds(lambda run=run: run(image), device))  # type: ignore[misc]
    middle = {key: statistics.median(values) for key, values in times.items()}
    return {
        "plain_s": middle["plain"],
        "ours_s": middle["ours"],
        "gflop": flop / 1e9,
        "plain_gflops": flop / middle["plain"] / 1e9,
        "ours_gflops": flop / middle["ours"] / 1e9,
        "matrix_gflops": 2 * _MATRIX**3 / middle["matrix"] / 1e9,
        "difference": difference,
        "largest_logit": largest,
        "times": times,
        "threads": torch.get_num_threads(),
    }


def _peak(name: str, options: str, size: str, out_channels: str, path: str) -> dict[str, Any]:
    """Most memory above that of the imported libraries, network and weights included, over two forwards."""
    import torch

    from LKSegmentLib.evaluation.plain_path import plain_path
    from LKSegmentLib.networks import prepare_for_inference

    with MemoryWatch() as watch, torch.inference_mode():
        network, image = made(name, json.loads(options), json.loads(size), int(out_channels))
        with plain_path(network) if path == "plain" else prepare_for_inference(network) as forward:
            forward(image)
            forward(image)
    return {"peak_mib": watch.peak_mib}


def _peak_there(name: str, options: str, size: str, out_channels: str, path: str, device: str) -> dict[str, Any]:
    """Most memory of a GPU that tensors hold over two forwards, network and weights included."""
    import torch

    from LKSegmentLib.evaluation.plain_path import plain_path
    from LKSegmentLib.networks import prepare_for_inference

    gc.collect()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode():
        network, image = made(name, json.loads(options), json.loads(size), int(out_channels), device)
        with plain_path(network) if path == "plain" else prepare_for_inference(network) as forward:
            forward(image)
            forward(image)
    return {"peak_mib": (torch.cuda.max_memory_allocated(device) - before) / 2**20}


def made(
    name: str, options: dict[str, Any], size: list[int], out_channels: int, device: str = "cpu"
) -> tuple[Any, Any]:
    """A network of random weights in evaluation mode, and a window (1, channels, k, j, i) of noise."""
    import torch
    from torch import nn

    from LKSegmentLib.networks import create

    torch.manual_seed(0)
    network = create(name, in_channels=1, out_channels=out_channels, **options).eval()
    for key, parameter in network.named_parameters():
        if key.endswith("layer_scale"):
            nn.init.constant_(parameter, 0.5)  # as published, at the start, the blocks would not show in the logits
    return network.to(device), torch.randn(1, 1, *size).to(device)


def _operator(
    channels: str, size: str, kernel: str, dilation: str, repeats: str, device: str
) -> dict[str, Any]:
    """Median seconds of torch's convolution and of ours, and both errors against double precision.

    On a GPU `methods_s` and `methods_error` tell the same of every method there is, chosen or not.
    """
    import torch
    import torch.nn.functional as functional

    from LKSegmentLib.operators import depthwise_conv3d

    c, n, k, d = int(channels), int(size), int(kernel), int(dilation)
    torch.manual_seed(0)
    image = torch.randn(1, c, n, n, n, device=device)
    weight = torch.randn(c, 1, k, k, k, device=device) / k**1.5
    last = image.contiguous(memory_format=torch.channels_last_3d)
    given: dict[Any, Any] = {"auto": last}
    if device != "cpu":  # what other methods than the direct one take as it comes is not to be copied in between
        given = {"auto": image, **({"triton": image} if importlib.util.find_spec("triton") is not None else {})}
        given |= {"direct": last, **({"fft": image} if d == 1 else {})}

    def plain() -> Any:
        return functional.conv3d(image, weight, padding=d * (k // 2), dilation=d, groups=c)

    def ours(method: Any) -> Any:
        return depthwise_conv3d(given[method], weight, dilation=d, method=method)

    ways: dict[str, Callable[[], Any]] = {"plain": plain}
    ways |= {name: functools.partial(ours, name) for name in given}
    with torch.inference_mode():
        exact = depthwise_conv3d(image[:, :1].double().cpu(), weight[:1].double().cpu(), dilation=d)
        errors = {way: float((run()[:, :1].cpu() - exact).abs().max() / exact.abs().max()) for way, run in ways.items()}
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(int(repeats)):
            for way, run in ways.items():
                times[way].append(_seconds(run, device))
    middle = {way: statistics.median(values) for way, values in times.items()}
    return {
        "plain_s": middle["plain"],
        "ours_s": middle["auto"],
        "ratio": middle["plain"] / middle["auto"],
        "ours_gflops": 2 * c * n**3 * k**3 / middle["auto"] / 1e9,
        "plain_error": errors["plain"],
        "ours_error": errors["auto"],
        "methods_s": middle,
        "methods_error": errors,
        "threads": torch.get_num_threads(),
    }


def _matrix_times(count: int, device: str = "cpu") -> list[float]:
    import torch

    a, b = (torch.randn(_MATRIX, _MATRIX, device=device) for _ in range(2))
    out = a @ b
    return [_seconds(lambda: torch.mm(a, b, out=out), device) for _ in range(count)]


def _seconds(run: Callable[[], Any], device: str = "cpu") -> float:
    import torch

    def waited() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter()

    begun = waited()
    run()
    return waited() - begun


class MemoryWatch:
    """The most memory this process holds inside a `with` block, above what it held at its start, in MiB."""

    def __init__(self, every: float = 0.002) -> None:
        import psutil

        self._process = psutil.Process()
        self._every = every
        self._over = threading.Event()
        self._highest = 0
        self.peak_mib = 0.0

    def __enter__(self) -> MemoryWatch:
        gc.collect()
        self._start = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.peak_mib = (self._highest - self._start) / 2**20

    def _look(self) -> None:
        while not self._over.wait(self._every):
            self._highest = max(self._highest, self._process.memory_info().rss)


def _main(words: list[str]) -> None:
    kinds: dict[str, Callable[..., dict[str, Any]]] = {"network": _network, "peak": _peak, "operator": _operator}
    sys.stdout.write(json.dumps(kinds[words[0]](*words[1:])))


if __name__ == "__main__":
    _main(sys.argv[1:])
