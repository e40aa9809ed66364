"""Services without torch for the tests of the worker: each model name is a way to behave."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import time

import numpy as np

from LKSegmentLib.engine.results import ClickResult, InspectResult, Map, MaskBox, ReachResult, SegmentResult, Table
from LKSegmentLib.errors import Cancelled, InputError, RunError
from LKSegmentLib.volumes import Volume


class OutOfMemoryError(RuntimeError):
    """Called as torch's own."""


class FakeService:
    """Answers with what it was given, so that tests can tell whether it arrived."""

    def __init__(self):
        self.images = {}
        self.order = []

    def prepare(self):
        print("a library prints to stdout, binary too: \x00\xff")
        print("and to stderr", file=sys.stderr)

    def release_memory(self):
        print("memory released", flush=True)

    def open_image(self, key, array, ijk_to_ras):
        if array.shape == (1, 1, 1):
            raise InputError("The image is too small.")
        self.images[key] = Volume(array, ijk_to_ras)

    def close_image(self, key):
        self.images.pop(key, None)

    def segment(self, key, model, device, progress, cancelled):
        volume = self.images[key]
        self.order.append(model)
        getattr(self, model, self.unknown)(volume, progress, cancelled)
        labels = volume.with_array((volume.array > 0).astype(np.uint16))
        return SegmentResult(labels, ["thing"], [{"name": "thing", "color": [1, 2, 3], "order": list(self.order)}])

    def unknown(self, volume, progress, cancelled):
        raise InputError("There is no such model; choose another.")

    def plain(self, volume, progress, cancelled):
        progress("preparing", 0.5)
        progress("windows", 0.0)
        progress("windows", 1.0)

    def patient(self, volume, progress, cancelled):
        """Runs until it is cancelled, politely."""
        for _ in range(2000):
            progress("windows", 0.25)
            if cancelled():
                raise Cancelled("Stopped.")
            time.sleep(0.005)

    def deaf(self, volume, progress, cancelled):
        """Ignores a cancel."""
        progress("windows", 0.25)
        time.sleep(60)

    def family(self, volume, progress, cancelled):
        """As deaf, with a child process of its own, whose number is the stage."""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        progress(str(child.pid), 0.5)
        time.sleep(60)

    def memory(self, volume, progress, cancelled):
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def no_memory(self, volume, progress, cancelled):
        raise MemoryError

    def broken_network(self, volume, progress, cancelled):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied\nand more lines")

    def device_fault(self, volume, progress, cancelled):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    def missing(self, volume, progress, cancelled):
        import a_package_that_nobody_has  # noqa: F401

    def refuses(self, volume, progress, cancelled):
        raise RunError("It did not work; try again.")

    def mistake(self, volume, progress, cancelled):
        {}["no such key"]

    def segfault(self, volume, progress, cancelled):
        ctypes.string_at(0)

    def chatter(self, volume, progress, cancelled):
        """Prints more than any pipe holds, then dies."""
        for number in range(20000):
            print("line", number)
        os._exit(9)

    def garbage(self, volume, progress, cancelled):
        channel = next(found for found in gc.get_objects() if type(found).__name__ == "Channel")
        channel._connection.sendall(b"this is no message of the protocol")
        time.sleep(60)

    def click(self, key, model, device, points, maps, progress, cancelled):
        volume = self.images[key]
        if model == "slow":
            time.sleep(0.3)
        i, j, k = (int(round(v)) for v in volume.grid.ijk_of(points[-1].ras))
        box = MaskBox((k, j, i), np.full((1, 1, 1), len(points), np.uint8))
        passport = {"points": [[*p.ras, p.positive] for p in points], "device": device}
        shown = [Map("attention", volume.with_array(volume.array.astype(np.float32)), passport)] if maps else []
        return ClickResult(box, shown)

    def exposed(self, model, progress):
        return {"model": model, "kind": "volume", "entries": [{"name": "gate"}], "nothing": ""}

    def inspect(self, key, model, device, points, layers, progress, cancelled, announce):
        announce(f"{len(layers)} maps, 3 MB.")
        if model == "patient":
            self.patient(self.images[key], progress, cancelled)
        if model == "slow":
            time.sleep(0.3)
        maps = [Map(name, self.images[key], {"device": device}) for name in layers]
        table = Table("weights", ("slice", "share"), ((0, 0.5), (1, None)), "slice", ("share",), {"unit": "none"})
        answer = ClickResult(MaskBox((0, 0, 0), np.full((1, 1, 1), len(points), np.uint8)))
        return InspectResult(answer, maps, [table])

    def reach(self, key, model, device, points, ras, label, progress, cancelled, around_mm):
        field = Map("reach", self.images[key], {"label": label, "points": len(points), "around": around_mm})
        return ReachResult(tuple(ras), field, {50: (1.0, 2.0, 3.0), 90: (4.0, 5.0, 6.0)}, None, "Near.")

    def models(self):
        return {"models": [{"name": "plain"}]}

    def doctor(self):
        return {"environment": dict(os.environ), "cwd": os.getcwd(), "process": os.getpid()}


class SlowStart(FakeService):
    """Takes a while before it is ready."""

    def prepare(self):
        time.sleep(60)
