"""What seeing why costs: recording the default set beside a plain run, and reach beside forward passes.

Measured in a fresh process (`python -m LKSegmentLib.evaluation.inspection_speed …` prints JSON), the ways in turns, so
that all meet the same state of the machine; medians are reported. User processor time (all threads) is what counts, as
it changes least with what else the machine does. The system's time, most of it for fresh memory, and wall time stand
beside it.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from LKSegmentLib.evaluation.speed import in_process, made

RECORDED = 1.15  # the promise: recording the default set makes a run at most so many times as long
REACH = 3.0  # the promise: forward passes that the reach at one voxel takes at most
CLICKS = ((48.0, 48.0, 48.0), (56.0, 48.0, 48.0), (48.0, 62.0, 48.0))


@dataclass(frozen=True)
class InspectionCase:
    """A network at its published width, and the window (k, j, i) that it is run on."""

    title: str
    name: str
    options: dict[str, Any]
    size: tuple[int, int, int] = (64, 64, 64)
    out_channels: int = 16


NETWORK_CASES = (
    InspectionCase("D-Net", "dnet", {}),
    InspectionCase("LK U-Net mid", "lka_unet", {"variant": "mid"}, out_channels=7),
    InspectionCase("LK U-Net full", "lka_unet", {"variant": "full"}, out_channels=7),
    InspectionCase("Rep3D", "rep3d", {}),
    InspectionCase("DALight-3D", "dalight3d", {}, out_channels=4),
)


def measure_network(case: InspectionCase, repeats: int) -> dict[str, Any]:
    """Measure in a fresh process; see `_network` for what comes back. RunError when the process failed."""
    given = (case.name, json.dumps(case.options), json.dumps(case.size), str(case.out_channels), str(repeats))
    return in_process(__name__, "network", *given)


def measure_clicks(repeats: int) -> dict[str, Any]:
    """Measure the shipped click model in a fresh process; see `_clicks`. RunError when the process failed."""
    return in_process(__name__, "clicks", str(repeats))


def _network(name: str, options: str, size: str, out_channels: str, repeats: str) -> dict[str, Any]:
    """Medians of one window: plain, recorded (stitching included), in the ordinary form, and there and back for reach.

    Plain and recorded run in the prepared form, as a segmentation on a CPU does; gradients only the ordinary form has.
    """
    import torch

    from LKSegmentLib.inference.windows import Window, window_layout
    from LKSegmentLib.inspection.by_network import exposed
    from LKSegmentLib.inspection.exposed import choose
    from LKSegmentLib.inspection.recording import MapRecorder
    from LKSegmentLib.networks import prepare_for_inference
    from LKSegmentLib.volumes import Grid

    k, j, i = json.loads(size)
    network, image = made(name, json.loads(options), [k, j, i], int(out_channels))
    network.requires_grad_(False)  # as the networks of packages
    ordinary = copy.deepcopy(network)
    chosen = choose(exposed(network), None, name)
    layout, window = window_layout((k, j, i), (k, j, i), 0.5), Window(0, (0, 0, 0), (k, j, i))
    times = _Times("plain", "recorded", "ordinary", "reach")

    def fast() -> Any:
        return network(image)

    def slow() -> Any:
        return ordinary(image)

    def recorded(recorder: MapRecorder) -> Any:
        recorder.start(layout, Grid((k, j, i), np.eye(4)))
        recorder.before_window(window)
        logits = network(image)
        recorder.after_window(window, logits[0])
        return logits

    def reach() -> Any:
        with torch.inference_mode(False), torch.enable_grad():
            given = image.clone().requires_grad_()
            return torch.autograd.grad(ordinary(given)[0, 0, k // 2, j // 2, i // 2], given)

    same = True
    with torch.inference_mode(), prepare_for_inference(network), MapRecorder(network, chosen) as recorder:
        fast()  # the first of many windows: packs weights, gets memory
        slow()
        for _ in range(int(repeats)):
            answer = times.take("plain", fast)
            same &= bool(torch.equal(answer, times.take("recorded", lambda: recorded(recorder))))
            del answer
            times.take("ordinary", slow)
            times.take("reach", reach)
    return {
        **times.medians(),
        "quantities": [entry.name for entry in chosen],
        "ratio": times.ratio("recorded", "plain"),
        "reach_passes": times.ratio("reach", "ordinary"),
        "reach_cpu_passes": times.ratio("reach", "ordinary", with_system=True),
        "reach_prepared_passes": times.ratio("reach", "plain"),
        "same_logits": same,
        "second_runs": recorder.runs_again,
        "threads": torch.get_num_threads(),
    }


def _clicks(repeats: str) -> dict[str, Any]:
    """Medians of a click of the shipped model on a phantom: without maps, with the default one and with all."""
    import torch

    from LKSegmentLib.inference.clicks import ClickModelSession
    from LKSegmentLib.inspection.click_maps import DEFAULT_LAYERS, EXPOSED, click_maps
    from LKSegmentLib.packages import load
    from LKSegmentLib.prompts import Point
    from LKSegmentLib.volumes import Volume

    places = np.indices((96, 96, 96)).astype(np.float32)
    ball = np.square(places - 48).sum(0) < 20**2
    noise = np.random.default_rng(0).normal(scale=10, size=ball.shape)
    volume = Volume((60 + 40 * ball + noise).astype(np.float32), np.eye(4))
    package = load("lk_click")
    points = [Point(ras, positive=number != 2) for number, ras in enumerate(CLICKS)]
    ways: dict[str, Any] = {"plain": None, "recorded": DEFAULT_LAYERS, "all": [entry.name for entry in EXPOSED]}
    times = _Times(*ways)
    package.network()
    ClickModelSession(volume, package).mask_for(points)

    def click(session: ClickModelSession, count: int, layers: Any) -> Any:
        if layers is not None:
            click_maps(session, points[:count], layers)
        return session.mask_for(points[:count])

    for _ in range(int(repeats)):
        for way, layers in ways.items():
            session = ClickModelSession(volume, package)
            for count in range(1, len(points) + 1):
                times.take(way, lambda: click(session, count, layers))  # noqa: B023
    return {
        **times.medians(),
        "quantities": list(DEFAULT_LAYERS),
        "ratio": times.ratio("recorded", "plain"),
        "all_ratio": times.ratio("all", "plain"),
        "window": list(package.manifest.window),
        "threads": torch.get_num_threads(),
    }


class _Times:
    """User, processor (user and system) and wall seconds of several ways."""

    def __init__(self, *ways: str) -> None:
        self._user: dict[str, list[float]] = {way: [] for way in ways}
        self._cpu: dict[str, list[float]] = {way: [] for way in ways}
        self._wall: dict[str, list[float]] = {way: [] for way in ways}

    def take(self, way: str, run: Callable[[], Any]) -> Any:
        """Run and note how long it took."""
        before, wall = os.times(), time.perf_counter()
        answer = run()
        after = os.times()
        self._wall[way].append(time.perf_counter() - wall)
        user = after.user - before.user
        self._user[way].append(user)
        self._cpu[way].append(user + after.system - before.system)
        return answer

    def medians(self) -> dict[str, float]:
        """`WAY_s`: user seconds; `WAY_cpu_s`: those and the system's; `WAY_wall_s`: wall seconds."""
        kinds = {"s": self._user, "cpu_s": self._cpu, "wall_s": self._wall}
        return {f"{way}_{kind}": statistics.median(taken) for kind, of in kinds.items() for way, taken in of.items()}

    def ratio(self, way: str, to: str, with_system: bool = False) -> float:
        """The median over the turns of the user time to that of another way in the same turn."""
        times = self._cpu if with_system else self._user
        pairs = zip(times[way], times[to], strict=True)
        return statistics.median(one / max(other, 1e-9) for one, other in pairs)  # a tick of the clock may be longer


def _main(words: list[str]) -> None:
    kinds: dict[str, Callable[..., dict[str, Any]]] = {"network": _network, "clicks": _clicks}
    sys.stdout.write(json.dumps(kinds[words[0]](*words[1:])))


if __name__ == "__main__":
    _main(sys.argv[1:])
