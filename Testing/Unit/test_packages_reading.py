"""Files that are no usable checkpoint: each gets one sentence, and none of them runs code."""

from __future__ import annotations

import argparse
import pickle
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402

import LKSegmentLib  # noqa: E402
from LKSegmentLib.errors import InputError  # noqa: E402
from LKSegmentLib.packages.reading import read_checkpoint  # noqa: E402

WEIGHTS = {"conv.weight": torch.arange(8.0).view(2, 4), "conv.bias": torch.ones(2)}
LIBRARY = Path(LKSegmentLib.__file__).parent


class Touch:
    """Unpickled by an ordinary reader, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.path,)


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)


def zipped(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "{}")


def cut_off(path: Path, legacy: bool) -> None:
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:-40])


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**20)


OPTIMIZER = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict()
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "no checkpoint at"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("weights"), "not a checkpoint"),
    "a web page": (lambda path: path.write_text("\n<!DOCTYPE html>"), "web page"),
    "a pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "Git LFS"),
    "another zip": (lambda path: zipped(path, "readme.txt"), "not a checkpoint of torch.save"),
    "a package": (lambda path: zipped(path, "model.json"), "a model package already"),
    "a bomb": (bomb, "absurd size"),
    "TorchScript": (scripted, "TorchScript"),
    "cut off": (lambda path: cut_off(path, legacy=False), "cut off"),
    "cut off, legacy": (lambda path: cut_off(path, legacy=True), "cut off"),
    "a plain pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "not a checkpoint that torch.save"),
    "a whole network": (lambda path: torch.save(torch.nn.Linear(2, 2), path), "torch.nn.modules.linear.Linear"),
    "arguments": (lambda path: torch.save({"state_dict": WEIGHTS, "args": argparse.Namespace()}, path), "Namespace"),
    "objects in an array": (
        lambda path: torch.save({**WEIGHTS, "x": np.array([{}], dtype=object)}, path),
        "not a checkpoint that torch.save wrote",
    ),
    "optimizer alone": (lambda path: torch.save(OPTIMIZER, path), "optimizer"),
    "optimizer, wrapped": (lambda path: torch.save({"optimizer": OPTIMIZER, "epoch": 3}, path), "optimizer"),
    "a list": (lambda path: torch.save([1, 2], path), "holds a list"),
    "a tensor": (lambda path: torch.save(torch.ones(2), path), "holds a Tensor"),
    "numbers": (lambda path: torch.save({"epoch": 3}, path), "it holds epoch"),
    "nothing": (lambda path: torch.save({}, path), "it holds nothing"),
    "more than tensors": (lambda path: torch.save({**WEIGHTS, "epoch": 3}, path), "'epoch'"),
    "a sparse tensor": (lambda path: torch.save({"a": torch.eye(2).to_sparse()}, path), "sparse"),
    "complex numbers": (lambda path: torch.save({"a": torch.ones(2, 2) * 1j}, path), "complex"),
    "an endless tensor": (lambda path: torch.save({"a": torch.ones(1).expand(10**11)}, path), "exceed 4 GiB"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_sentence(kind: str, tmp_path: Path) -> None:
    write, part = BAD[kind]
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    sentence = str(caught.value)
    assert part in sentence and "weights.pth" in sentence
    assert "\n" not in sentence and "weights_only" not in sentence and "\x1b" not in sentence


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_named_and_not_run(legacy: bool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    content = {"state_dict": WEIGHTS, "hook": Touch(mark)}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match="would run Python code"):
        read_checkpoint(tmp_path / "weights.pt")
    assert not mark.exists()
    torch.load(tmp_path / "weights.pt", weights_only=False)
    assert mark.exists()  # the file was really dangerous


@pytest.mark.parametrize("content", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_content_decides_and_not_the_name(content: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if content == "safetensors":
        safetensors.torch.save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=content == "zip")
    tensors = read_checkpoint(path).tensors
    assert set(tensors) == set(WEIGHTS) and all(torch.equal(tensors[key], WEIGHTS[key]) for key in WEIGHTS)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_files_end_in_a_sentence_or_are_read(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    content = {"network_weights": WEIGHTS, "logging": {"dice": [np.float64(0.5)]}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    random.seed(4)
    refusals = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(random.choice((1, 4))):
            damaged[random.randrange(len(whole))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except InputError:
            refusals += 1
    assert refusals > 10


def test_torch_load_is_called_in_two_places_and_never_runs_code() -> None:
    calls = {
        path.relative_to(LIBRARY).as_posix(): found
        for path in LIBRARY.rglob("*.py")
        if (found := re.findall(r"(?<!safetensors\.)torch\.load\((.*)\)", path.read_text(encoding="utf-8")))
    }
    assert set(calls) == {"packages/reading.py", "training/click_training.py"}
    assert all(len(found) == 1 and "weights_only=True" in found[0] for found in calls.values())
