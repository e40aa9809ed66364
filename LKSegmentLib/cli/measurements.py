"""What `lksegment bench` measures, each against the limit the project sets itself.

Times depend on the machine, so nothing here is a test. The worker is watched from outside, the way a host program
sees it: a loop that calls `poll` every few milliseconds, as the panel's timer does.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from LKSegmentLib.engine.client import EngineClient
from LKSegmentLib.engine.jobs import Event, ImageHandle, Job
from LKSegmentLib.errors import RunError
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Grid, Volume, resample

_TICK = 0.01  # seconds between two polls
_CLASSES = 16


@dataclass(frozen=True)
class Measurement:
    """The median of some repeats. `limit` is in the same unit, None where there is no promise."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    repeats: int = 1
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value over limit: at most 1 is as promised."""
        return None if self.limit is None else self.value / self.limit


def median_of(name: str, values: list[float], unit: str, limit: float | None = None, note: str = "") -> Measurement:
    """The median of several values as a measurement."""
    return Measurement(name, statistics.median(values), unit, limit, len(values), note)


@dataclass
class Watch:
    """A host's event loop around one client. Keeps the longest time that the loop did not turn."""

    client: EngineClient
    longest_stall: float = 0.0
    _last: float | None = field(default=None, repr=False)

    def until(self, over: Callable[[], bool], seen: Callable[[Event], None] | None = None) -> float:
        """Turn the loop until `over()`; seconds that took."""
        begun = time.monotonic()
        self._last = None
        while not over():
            now = time.monotonic()
            if self._last is not None:
                self.longest_stall = max(self.longest_stall, now - self._last - _TICK)
            self._last = now
            for event in self.client.poll():
                if seen is not None:
                    seen(event)
            time.sleep(_TICK)
        return time.monotonic() - begun

    def finish(self, job: Job) -> float:
        """Turn the loop until the job is over; seconds. Raises RunError when it did not end well."""
        seconds = self.until(lambda: job.is_over)
        if job.state != "done":
            raise RunError(f"A measurement could not be made: {job.error or 'its job was cancelled'}")
        return seconds


def operators(repeats: int) -> list[Measurement]:
    """Our dilated depth-wise convolution against torch's own, on this machine's CPU; how many times faster."""
    import torch

    from LKSegmentLib.operators import depthwise_conv3d

    found = []
    for channels, edge in ((48, 48), (64, 32)):
        image = torch.randn(1, channels, edge, edge, edge)
        weight = torch.randn(channels, 1, 7, 7, 7)
        ours: list[float] = []
        stock: list[float] = []
        with torch.inference_mode():
            for _ in range(repeats + 1):
                begun = time.perf_counter()
                answer = depthwise_conv3d(image, weight, dilation=3)
                ours.append(time.perf_counter() - begun)
            for _ in range(max(1, repeats // 2)):
                begun = time.perf_counter()
                expected = torch.nn.functional.conv3d(image, weight, padding=9, dilation=3, groups=channels)
                stock.append(time.perf_counter() - begun)
        error = float((answer - expected).abs().max())
        ratio = statistics.median(stock) / statistics.median(ours[1:])
        name = f"depth-wise 7³ dilation 3, {channels} channels, {edge}³: times faster than torch"
        found.append(Measurement(name, ratio, "x", None, repeats, f"largest difference {error:.1e}"))
    return found


def clicks(volume: Volume, points: list[Point], device: str, repeats: int) -> list[Measurement]:
    """First and further clicks of `lk_click`, with the start of the worker and without."""
    cold, first, warm = [], [], []
    stall = 0.0
    for _ in range(repeats):
        with EngineClient() as client:
            watch = Watch(client)
            handle = client.open_image(volume)
            cold.append(watch.finish(client.click(handle, "lk_click", device, points[:1])))
        with EngineClient() as client:
            watch = Watch(client)
            client.start()
            watch.until(lambda client=client: client.is_ready or not client.is_alive)  # type: ignore[misc]
            handle = client.open_image(volume)
            first.append(watch.finish(client.click(handle, "lk_click", device, points[:1])))
            for count in range(2, len(points) + 1):
                warm.append(watch.finish(client.click(handle, "lk_click", device, points[:count])))
            stall = max(stall, watch.longest_stall)
    return [
        median_of("click → mask, first, worker not started", cold, "s", None, "process start and import included"),
        median_of("click → mask, first", first, "s", 4.0, "worker started, model and image not yet loaded"),
        median_of("click → mask, warm", warm, "s", 1.5),
        Measurement("host loop: longest stall while clicking", stall, "s", 0.1, repeats),
    ]


def segmentation(volume: Volume, device: str, repeats: int) -> list[Measurement]:
    """Starting, cancelling and killing a whole-volume run; a D-Net with random weights stands for the model."""
    first_windows, cooperative, forced = [], [], []
    with random_model((64, 64, 64)) as model, EngineClient() as client:
        watch = Watch(client)
        handle = client.open_image(volume)
        for number in range(repeats + 1):
            job = client.segment(handle, model, device)
            seconds = watch.until(lambda job=job: job.is_over or _prepared(job))  # type: ignore[misc]
            if number:  # the first run loads torch and the model
                first_windows.append(seconds)
            watch.until(lambda job=job: job.is_over or job.stage == "windows")  # type: ignore[misc]
            client.cancel(job)
            cooperative.append(watch.until(lambda job=job: job.is_over))  # type: ignore[misc]
        stall = watch.longest_stall
        if sys.platform != "win32":
            for _ in range(max(1, repeats // 2)):
                forced.append(_forced(client, watch, handle, model, device))
    found = [
        median_of("request → first window, second run", first_windows, "s", 1.0),
        median_of("cancel → idle, cooperative", cooperative, "s", 1.0),
        Measurement("host loop: longest stall while segmenting", stall, "s", 0.1, repeats),
    ]
    if forced:
        found.append(median_of("cancel → idle, worker does not answer", forced, "s", 3.0, "killed"))
    return found


def large_volume(device: str) -> list[Measurement]:
    """Peak memory of the worker for a CT of 512 x 512 x 300, clicked on and segmented."""
    from LKSegmentLib.training.abdomen import demonstration_grid, make_abdomen

    small = make_abdomen().volume
    extent = np.array(small.grid.shape) * np.array(small.spacing[::-1])
    shape = (300, 512, 512)
    spacing = (extent / shape)[::-1]
    matrix = np.eye(4)
    matrix[:3, :3] = demonstration_grid().directions * spacing
    matrix[:3, 3] = small.grid.centre_ras - matrix[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    volume = resample(small, Grid(shape, matrix))
    volume = volume.with_array(volume.array.astype(np.int16))
    found = []
    with EngineClient() as client:
        watch = Watch(client)
        handle = client.open_image(volume)
        seconds = watch.finish(client.click(handle, "lk_click", device, [Point((70.0, 0.0, 60.0))], with_maps=True))
        found.append(Measurement("512x512x300: first click, worker not started", seconds, "s"))
        found.append(Measurement("512x512x300: peak memory after a click", _peak(client), "GiB", 4.0))
        with random_model((128, 128, 128)) as model:
            seconds = watch.finish(client.segment(handle, model, device))
            found.append(Measurement(f"512x512x300: segmentation, {_CLASSES} classes", seconds, "s"))
            found.append(Measurement("512x512x300: peak memory after a segmentation", _peak(client), "GiB", 4.0))
        found.append(Measurement("512x512x300: longest stall of the host loop", watch.longest_stall, "s", 0.1))
    return found


@contextmanager
def random_model(window: tuple[int, int, int]) -> Iterator[str]:
    """The path of a temporary package: a slim D-Net with random weights, 16 classes, any spacing."""
    import torch

    from LKSegmentLib import networks, packages

    options: dict[str, Any] = {"depths": [1, 1, 1, 1, 1], "feature_sizes": [4, 8, 16, 32, 64]}
    torch.manual_seed(0)
    network = networks.create("dnet", in_channels=1, out_channels=_CLASSES, **options)
    with tempfile.TemporaryDirectory() as folder:
        path = packages.save(
            Path(folder) / "bench",
            network="dnet",
            options=options,
            state_dict=network.state_dict(),
            labels=[{"name": f"part {number}"} for number in range(1, _CLASSES)],
            window=window,
            overlap=0.25,
            licence="none: random weights",
        )
        yield str(path)


def _prepared(job: Job) -> bool:
    return job.stage in ("windows", "labels") or (job.stage == "preparing" and job.progress >= 1.0)


def _forced(client: EngineClient, watch: Watch, handle: ImageHandle, model: str, device: str) -> float:
    """A worker that cannot answer (stopped by a signal): seconds from cancel until the job is over."""
    job = client.segment(handle, model, device)
    watch.until(lambda: job.is_over or job.stage == "windows")
    os.kill(int(client.worker_facts["process"]), signal.SIGSTOP)
    client.cancel(job)
    return watch.until(lambda: job.is_over)


def _peak(client: EngineClient) -> float:
    """Most memory the worker has held so far, GiB, shared arrays included."""
    import psutil

    process = int(client.worker_facts["process"])
    status = Path(f"/proc/{process}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    memory = psutil.Process(process).memory_info()
    return float(getattr(memory, "peak_wset", memory.rss)) / 2**30
