"""The list of installed models, read without torch."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from test_packages_manifest import GOOD

from LKSegmentLib import packages
from LKSegmentLib.errors import InputError
from LKSegmentLib.packages.store import locate

ROOT = Path(__file__).resolve().parents[2]


def put(folder: Path, name: str, /, **values: Any) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "model.json").write_text(json.dumps({**GOOD, "name": name, **values}))
    return folder / name


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    built_in, own = tmp_path / "built in", tmp_path / "own"
    monkeypatch.setenv("LKSEGMENT_BUILT_IN_MODELS", str(built_in))
    monkeypatch.setenv("LKSEGMENT_MODELS", str(own))
    return built_in, own


def test_missing_folders_mean_no_models(folders: tuple[Path, Path]) -> None:
    assert packages.catalogue() == [] and packages.broken_packages() == []


def test_built_in_models_come_first_and_keep_their_names(folders: tuple[Path, Path]) -> None:
    built_in, own = folders
    put(built_in, "lk_click", kind="click", title="Click")
    put(own, "abdomen", summary="Liver and spleen")
    put(own, "copy", name="lk_click")
    (own / "notes").mkdir()
    (own / ".abdomen.saving-1").mkdir()
    entries = packages.catalogue()
    assert [(entry.name, entry.kind, entry.built_in) for entry in entries] == [
        ("lk_click", "click", True),
        ("abdomen", "volume", False),
    ]
    assert entries[1].summary == "Liver and spleen"
    assert [label.name for label in entries[1].labels] == ["liver", "spleen"]
    assert entries[0].folder == built_in.resolve() / "lk_click"
    [clash] = packages.broken_packages()
    assert clash.folder.name == "copy" and "another name" in clash.problem


def test_a_broken_package_is_listed_with_its_reason_and_does_not_hide_the_others(
    folders: tuple[Path, Path],
) -> None:
    _, own = folders
    put(own, "good")
    put(own, "newer", format_version=7)
    (own / "text.zip").write_text("no zip")
    assert [entry.name for entry in packages.catalogue()] == ["good"]
    assert {broken.folder.name: "format version 7" in broken.problem for broken in packages.broken_packages()} == {
        "newer": True,
        "text.zip": False,
    }
    with pytest.raises(InputError, match="format version 7"):
        locate("newer")


def test_a_zip_of_a_later_version_does_not_hide_the_others(folders: tuple[Path, Path]) -> None:
    _, own = folders
    put(own, "good")
    with zipfile.ZipFile(own / "later.zip", "w") as archive:
        archive.writestr("model.json", "{}")
    content = bytearray((own / "later.zip").read_bytes())
    content[content.find(b"PK\x01\x02") + 6] = 99  # the version needed to unpack it
    (own / "later.zip").write_bytes(content)
    assert [entry.name for entry in packages.catalogue()] == ["good"]
    assert [broken.folder.name for broken in packages.broken_packages()] == ["later.zip"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="who may read everything cannot see this")
def test_a_folder_that_may_not_be_read_does_not_hide_the_others(folders: tuple[Path, Path]) -> None:
    _, own = folders
    put(own, "good")
    put(own, "private").chmod(0)
    assert [entry.name for entry in packages.catalogue()] == ["good"]
    [broken] = packages.broken_packages()
    (own / "private").chmod(0o700)
    assert broken.folder.name == "private" and "permissions" in broken.problem


def test_a_name_means_an_installed_model_and_a_path_a_path(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, own = folders
    installed = put(own, "abdomen").resolve()
    put(tmp_path / "here", "abdomen")
    put(tmp_path / "here", "other")
    monkeypatch.chdir(tmp_path / "here")
    assert locate("abdomen") == installed
    assert locate("./abdomen") == Path("abdomen")
    assert locate(Path("abdomen")) == Path("abdomen")
    assert locate("other") == Path("other")
    with pytest.raises(InputError, match=r"no model \"liver\" \(installed: abdomen\)"):
        locate("liver")
    assert locate("~nobody-of-this-name/model") == Path("~nobody-of-this-name/model")
    with pytest.raises(InputError, match="No model was named"):
        locate(" ")


def test_in_a_checkout_the_built_in_models_lie_beside_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LKSEGMENT_BUILT_IN_MODELS", raising=False)
    assert packages.built_in_folder() == ROOT / "Resources" / "Models"


def test_the_function_is_not_hidden_by_the_module_of_the_same_name() -> None:
    import LKSegmentLib.packages.catalogue  # noqa: F401

    assert callable(packages.catalogue)
