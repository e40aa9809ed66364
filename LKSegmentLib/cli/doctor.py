"""`lksegment doctor`: in plain words, what works on this machine and what to do about what does not."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from LKSegmentLib.cli.command import Command
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.errors import InputError, LKSegmentError, RunError
from LKSegmentLib.version import __version__

_SCENE_ADVICE = "scenes, .seg.nrrd files and pictures need it: pip install slicer-core"
_LEAST_MEMORY = 4e9


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `needed`: without it nothing can be segmented."""

    name: str
    works: bool
    needed: bool
    sentence: str


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--python", metavar="PATH", help="interpreter of the worker to look at (default: this one)")


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    with screen.progress("Looking around") as progress:
        progress("Python", 0.0)
        findings = [_python()]
        progress("worker and devices", 0.1)
        worker, facts = _worker(arguments.python)
        findings += worker
        progress("models", 0.5)
        findings.append(_models())
        progress("Slicer's data model", 0.6)
        findings.append(_slicer_core())
        progress("rendering", 0.8)
        findings += [_rendering(), _memory(), _disk()]
    for finding in findings:
        mark = "ok  " if finding.works else ("FAIL" if finding.needed else "--  ")
        screen.say(f"{mark}  {finding.name}: {finding.sentence}")
    missing = [finding for finding in findings if finding.needed and not finding.works]
    result = {"works": not missing, "findings": [asdict(finding) for finding in findings], "worker": facts}
    if missing:
        # The findings are the answer also when they are bad: they are printed before the command fails.
        screen.finish(result)
        raise RunError(f"LKSegment cannot segment here: {missing[0].name}: {missing[0].sentence}.")
    screen.say("\nLKSegment works here.")
    return result


def _python() -> Finding:
    right = sys.version_info >= (3, 10)
    sentence = f"{platform.python_version()} ({sys.executable}), LKSegment {__version__}"
    return Finding("Python", right, True, sentence if right else f"{sentence}; 3.10 or newer is needed")


def _worker(interpreter: str | None) -> tuple[list[Finding], dict[str, Any]]:
    """What the worker process says of itself: torch and each device."""
    from LKSegmentLib.engine.client import EngineClient

    begun = time.monotonic()
    try:
        with EngineClient(interpreter) as client:
            facts = client.wait(client.doctor(), timeout=180)
    except (LKSegmentError, TimeoutError) as error:
        return [Finding("worker process", False, True, str(error).rstrip("."))], {}
    seconds = time.monotonic() - begun
    sentence = f"starts and answers in {seconds:.1f} s ({facts['interpreter']})"
    findings = [Finding("worker process", True, True, sentence)]
    if facts["torch"] is None:
        advice = f"not installed in {facts['interpreter']}: pip install torch (in Slicer: the extension PyTorch)"
        return [*findings, Finding("torch", False, True, advice)], facts
    findings.append(Finding("torch", True, True, f"{facts['torch']}, {facts['threads']} threads"))
    for device in facts["devices"]:
        memory = f", {device['memory_bytes'] / 1e9:.0f} GB" if device["memory_bytes"] else ""
        verdict = "a small 3-D convolution runs" if device["works"] else f"does not work: {device['problem']}"
        needed = device["name"] == "cpu"
        findings.append(
            Finding(f"device {device['name']}", device["works"], needed, f"{device['title']}{memory}; {verdict}")
        )
    return findings, facts


def _models() -> Finding:
    from LKSegmentLib.packages import broken_packages, catalogue, user_folder

    names = [f"{entry.name} ({entry.kind})" for entry in catalogue()]
    problems = "".join(f"; unusable: {package.problem.rstrip('.')}" for package in broken_packages())
    listed = ", ".join(names) if names else "none installed"
    sentence = f"{listed}; your own go into {user_folder()}{problems}"
    return Finding("models", bool(names) and not problems, False, sentence)


def _slicer_core() -> Finding:
    name = "Slicer's data model"
    if importlib.util.find_spec("slicer") is None:
        return Finding(name, False, False, f"slicer-core is not installed; {_SCENE_ADVICE}")
    from LKSegmentLib.scene.core import headless_scene

    try:
        headless_scene()
    except (InputError, RunError) as error:
        return Finding(name, False, False, f"{str(error).rstrip('.')}; {_SCENE_ADVICE}")
    return Finding(name, True, False, f"slicer-core {importlib.metadata.version('slicer-core')}, scenes can be made")


def _rendering() -> Finding:
    if importlib.util.find_spec("vtk") is None:
        return Finding("rendering", False, False, "vtk is not installed; it comes with slicer-core")
    from LKSegmentLib.scene.views import rendering_problem

    problem = rendering_problem()
    if problem is not None:
        return Finding("rendering", False, False, problem.rstrip("."))
    return Finding("rendering", True, False, "pictures of Slicer's views can be drawn without a display")


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    sentence = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free, {os.cpu_count()} processors"
    enough = memory.available >= _LEAST_MEMORY
    return Finding("memory", enough, False, sentence if enough else f"{sentence}; a large CT needs up to 4 GB")


def _disk() -> Finding:
    usage = shutil.disk_usage(Path.cwd())
    return Finding("disk", usage.free > 1e9, False, f"{usage.free / 1e9:.0f} GB free in {Path.cwd()}")


COMMAND = Command(
    name="doctor",
    summary="Say in plain words what works on this machine.",
    example="  lksegment doctor\n  lksegment doctor --json",
    configure=configure,
    run=run,
)
