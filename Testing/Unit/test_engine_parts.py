"""Interpreter, environment, sentences and results of the engine, without a worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from LKSegmentLib.engine import failures, launching, results
from LKSegmentLib.engine.client import EngineClient
from LKSegmentLib.engine.protocol import ProtocolError
from LKSegmentLib.engine.request_fields import model_name
from LKSegmentLib.engine.worker import Worker, check_room
from LKSegmentLib.errors import Cancelled, InputError, RunError
from LKSegmentLib.inspection import Map, Table
from LKSegmentLib.volumes import Volume


def program(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("")
    return str(folder / name)


LAUNCHER = "PythonSlicer.exe" if os.name == "nt" else "PythonSlicer"


def test_outside_slicer_the_interpreter_is_this_one(monkeypatch, tmp_path):
    program(tmp_path / "slicer", LAUNCHER)
    monkeypatch.setenv("PATH", str(tmp_path / "slicer"))
    monkeypatch.setattr(sys, "executable", program(tmp_path / "env", "python3.11"))
    assert launching.default_interpreter() == str(tmp_path / "env" / "python3.11")


@pytest.mark.parametrize("running", ["SlicerApp-real", "python-real", "PythonSlicer", "python-real.exe"])
def test_inside_slicer_it_is_the_launcher_beside(monkeypatch, tmp_path, running):
    monkeypatch.setattr(sys, "executable", program(tmp_path, running))
    launcher = program(tmp_path, LAUNCHER)
    assert launching.default_interpreter() == launcher


@pytest.mark.parametrize("running", ["", "Slicer"])
def test_inside_the_application_the_launcher_may_be_on_the_path(monkeypatch, tmp_path, running):
    monkeypatch.setattr(sys, "executable", program(tmp_path / "app", running) if running else "")
    launcher = program(tmp_path / "bin", LAUNCHER)
    monkeypatch.setenv("PATH", os.pathsep.join(["", str(tmp_path), str(tmp_path / "bin")]))
    assert launching.default_interpreter() == launcher


def test_without_any_interpreter_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setenv("PATH", "")
    client = EngineClient()
    with pytest.raises(InputError, match="No Python interpreter"):
        client.start()
    with pytest.raises(InputError, match="No Python interpreter"):
        client.wait(client.models(), 5.0)


def test_the_environment_is_this_one_with_the_changes_and_the_library_first(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/slicer/lib")
    monkeypatch.setenv("KEPT", "yes")
    environment = launching.worker_environment({"LD_LIBRARY_PATH": None, "OMP_NUM_THREADS": "2"})
    assert environment["PYTHONPATH"] == os.pathsep.join([str(launching.library_parent()), "elsewhere"])
    assert "LD_LIBRARY_PATH" not in environment and environment["OMP_NUM_THREADS"] == "2"
    assert environment["KEPT"] == "yes" and os.environ["LD_LIBRARY_PATH"] == "/slicer/lib"


def test_changes_to_another_environment_lead_there(monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/slicer")
    target = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"} | {"NEW": "1", "HOME": "/h"}
    reached = launching.worker_environment(launching.changes_to(target))
    del reached["PYTHONPATH"]
    assert reached == {name: value for name, value in target.items() if name != "PYTHONPATH"}


def test_paths_of_models_become_absolute_and_names_stay():
    assert model_name("lk_click") == "lk_click"
    assert model_name(os.path.join("models", "mine")) == os.path.abspath(os.path.join("models", "mine"))
    assert model_name("mine.zip") == os.path.abspath("mine.zip")


def test_a_folder_here_is_meant_where_no_installed_model_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "lk_click").mkdir()
    assert model_name("mine") == str(tmp_path / "mine")
    assert model_name("lk_click") == "lk_click"


class OutOfMemoryError(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OutOfMemoryError("Tried to allocate 2 GiB"), failures.OutOfMemory, "on the device 'cuda:0'.*try again"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), failures.OutOfMemory, "memory"),
        (MemoryError(), failures.OutOfMemory, "on this computer"),
        (RuntimeError("CUDA error: device-side assert triggered\nCompile with"), failures.DeviceFault, "triggered. A"),
        (RuntimeError("shapes do not fit\nsecond line"), RunError, "^The network stopped .*: shapes do not fit.$"),
        (RuntimeError(""), RunError, "RuntimeError"),
        (OSError(28, "No space left on device"), RunError, "No space left on device"),
        (ModuleNotFoundError("x", name="torch"), InputError, "'torch' is missing in .*PyTorch"),
        (InputError("As it was."), InputError, "^As it was.$"),
        (Cancelled("Stopped."), Cancelled, "^Stopped.$"),
        (KeyError("a mistake of ours"), KeyError, "a mistake of ours"),
    ],
)
def test_errors_become_sentences(error, kind, words):
    with pytest.raises(kind, match=words) as caught:
        with failures.plain_errors("cuda:0"):
            raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (-9, "killed while segmenting.*memory"),
        (-11, "SIGSEGV"),
        (-250, "signal 250"),
        (70, "Oops: 5. .*report"),
        (1, "code 1"),
    ],
)
def test_a_dead_worker_is_one_sentence(exit_code, words):
    sentence = failures.death_sentence("segmenting", exit_code, ["first", "Oops: 5"])
    assert re.search(words, sentence) and "fresh worker" in sentence


def test_a_worker_that_cannot_start_explains_itself_or_shows_its_last_line():
    assert failures.start_sentence("py", 3, ["x", "LKSegment worker: Install numpy."]) == "Install numpy."
    assert "SyntaxError: no. Choose a Python 3.10" in failures.start_sentence("py", 1, ["SyntaxError: no"])
    assert "it printed nothing" in failures.start_sentence("py", 1, [])


def test_results_survive_the_way():
    matrix = np.array([[0.1, 0, 0, 1 / 3], [0, -2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
    labels = Volume(np.arange(8, dtype=np.uint16).reshape(2, 2, 2), matrix)
    segment = results.SegmentResult(labels, ["a"], [{"name": "a"}])
    box = results.MaskBox((1, 0, 2), np.ones((1, 1, 1), np.uint8))
    gate = Map("gate", labels.with_array(labels.array.astype(np.float32)), {"unit": "none"})
    click = results.ClickResult(box, [gate])
    back = results.decoded(*results.encoded(segment))
    assert back.names == ["a"] and np.array_equal(back.labels.ijk_to_ras, matrix)
    assert np.array_equal(back.labels.array, labels.array)
    back = results.decoded(*results.encoded(click))
    assert back.box.lower == (1, 0, 2) and back.maps[0].name == "gate" and back.maps[0].passport == {"unit": "none"}
    assert np.argwhere(back.box.full((2, 2, 3))).tolist() == [[1, 0, 2]]
    assert not results.MaskBox((0, 0, 0), np.zeros((0, 0, 0), np.uint8)).full((2, 2, 3)).any()
    assert results.decoded(*results.encoded({"models": []})) == {"models": []}


@pytest.mark.parametrize("answer", ["labels", "mask"])
def test_inspections_survive_the_way(answer):
    matrix = np.diag([1.0, 2.0, 3.0, 1.0])
    labels = Volume(np.arange(8, dtype=np.uint16).reshape(2, 2, 2), matrix)
    gate = Map("gate", labels.with_array(labels.array.astype(np.float32)), {"range": [np.float32(0), float("inf")]})
    table = Table("weights", ("slice", "share"), ((0, 0.25), (1, float("nan"))), "slice", ("share",), {"unit": "none"})
    given = {
        "labels": results.SegmentResult(labels, ["a"], [{"name": "a"}]),
        "mask": results.ClickResult(results.MaskBox((1, 0, 2), np.ones((1, 1, 1), np.uint8))),
    }[answer]
    text, arrays = results.encoded(results.InspectResult(given, [gate, gate], [table]))
    json.dumps(text, allow_nan=False)
    back = results.decoded(text, arrays)
    assert type(back.answer) is type(given) and len(back.maps) == 2
    assert np.array_equal(back.maps[1].volume.array, gate.volume.array)
    assert back.maps[0].passport == {"range": [0.0, None]}, "JSON has no infinity"
    assert back.tables == [Table("weights", table.columns, ((0, 0.25), (1, None)), "slice", ("share",), table.passport)]
    with pytest.raises(ProtocolError):
        results.decoded(text, arrays[:-1])
    weights = results.decoded(*results.encoded(results.InspectResult(None, [gate], [table])))
    assert weights.answer is None and len(weights.maps) == len(weights.tables) == 1


def test_a_reach_survives_the_way():
    field = Map("reach", Volume(np.ones((2, 3, 4), np.float32), np.diag([1.0, 2.0, 3.0, 1.0])), {"unit": "x"})
    given = results.ReachResult((1.0, 2.0, 3.0), field, {50: (1.0, 2.0, 3.0), 90: (4.0, 5.0, 6.0)}, None, "In words.")
    back = results.decoded(*results.encoded(given))
    assert (back.ras, back.radii_mm, back.theoretical_mm) == (given.ras, given.radii_mm, None)
    assert back.sentence == "In words." and np.array_equal(back.map.volume.array, field.volume.array)
    there = results.ReachResult(given.ras, field, given.radii_mm, (7.0, 8.0, 9.0), "")
    assert results.decoded(*results.encoded(there)).theoretical_mm == (7.0, 8.0, 9.0)


@pytest.mark.parametrize(
    ("result", "count"),
    [
        ({"kind": "segment"}, 1), ({"kind": "click", "maps": []}, 1), ({"kind": "x"}, 0), ({}, 0),
        ({"kind": "json"}, 0),
        ({"kind": "inspect", "arrays": 1, "maps": []}, 1), ({"kind": "inspect", "answer": {}}, 0),
        ({"kind": "inspect", "arrays": 0, "maps": [], "tables": [], "answer": {"kind": "json", "value": {}}}, 0),
        ({"kind": "reach", "maps": []}, 0), ({"kind": "reach", "maps": [{}], "radii_mm": []}, 1),
    ],
)  # fmt: skip
def test_incomplete_results_are_refused(result, count):
    with pytest.raises(ProtocolError, match="sent a result of"):
        results.decoded(result, [np.zeros((1, 1, 1))] * count)


def test_progress_is_thinned_but_stages_and_ends_are_always_told():
    sent = []
    channel = type("Recorder", (), {"send": lambda self, told: sent.append((told["stage"], told["fraction"]))})()
    progress = Worker(channel, None).progress_of(1)
    for step in range(1001):
        progress("windows", step / 1000)
    progress("stitching", 2.0)
    assert sent[0] == ("windows", 0.0) and sent[-2:] == [("windows", 1.0), ("stitching", 1.0)]
    assert len(sent) < 900


def test_maps_that_cannot_be_handed_over_are_one_sentence():
    maps = [np.zeros((100, 100, 100), np.float32)] * 3
    check_room(maps, free=24_000_000)
    check_room(maps)
    with pytest.raises(InputError, match=r"take 0.0 GB, .* choose fewer maps, or record them with the command"):
        check_room(maps, free=23_999_999)


def test_the_client_side_needs_no_torch():
    code = "import sys, LKSegmentLib.engine.client; print({'torch', 'SimpleITK', 'slicer'} & set(sys.modules))"
    environment = launching.worker_environment({})
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ran.stdout == "set()\n"


@pytest.mark.parametrize(
    ("cause", "kind"),
    [(MemoryError(), failures.OutOfMemory), (RuntimeError("CUDA error: x"), failures.DeviceFault), (None, RunError)],
)
def test_sentences_of_others_stay_as_they_are_and_their_cause_is_known(cause, kind):
    with pytest.raises(RunError, match=r"^The network needs more\.$") as caught:
        with failures.plain_errors():
            raise RunError("The network needs more.") from cause
    assert type(caught.value) is kind
