"""What ends in the packaged extension, found by configuring and installing it with CMake against a stub of Slicer."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).parent / "slicer_stub"
MODULES = Path("lib/Slicer-5.12/qt-scripted-modules")

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    # The extension is Python only: naming the compilers as found spares CMake from trying them out.
    quick = [f"-DCMAKE_{language}_COMPILER_FORCED=ON" for language in ("C", "CXX")]
    _run("cmake", "-S", ROOT, "-B", folder, f"-DSlicer_DIR={STUB}", *quick)
    return folder


@pytest.fixture(scope="module")
def installed(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    _run("cmake", "--install", build, "--prefix", folder)
    return folder / MODULES


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_library_is_installed_whole(installed: Path) -> None:
    source = ROOT / "LKSegmentLib"
    assert _files(source) - {"CMakeLists.txt"} == _files(installed / "LKSegmentLib")


def test_the_module_is_installed_with_its_resources(installed: Path) -> None:
    assert (installed / "LKSegment.py").is_file()
    for name in ("UI/LKSegment.ui", "Icons/LKSegment.png", "Icons/LKSegment.svg"):
        assert (installed / "Resources" / name).is_file()


def test_the_models_lie_where_the_catalogue_looks(installed: Path) -> None:
    """`Resources/Models` beside `LKSegmentLib`, in the package as in the checkout."""
    source = ROOT / "Resources" / "Models"
    assert _files(source) == _files(installed / "Resources" / "Models")


def test_the_build_tree_has_the_models_too(build: Path) -> None:
    """CTest runs the build tree, not the package."""
    _run("cmake", "--build", build, "--target", "CopyLKSegmentModels")
    assert _files(build / MODULES / "Resources" / "Models") == _files(ROOT / "Resources" / "Models")


def test_the_tests_of_the_application_are_registered(build: Path) -> None:
    listing = subprocess.run(["ctest", "-N"], cwd=build, capture_output=True, text=True, timeout=60).stdout
    assert "py_LKSegment" in listing
    assert "py_LKSegmentInstalledTest" in listing


def test_index_entry_agrees_with_cmake() -> None:
    """The index checker compares them: name, dependencies, category, https address."""
    entry = json.loads((ROOT / "LKSegment.json").read_text(encoding="utf-8"))
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "project(LKSegment)" in cmake
    assert f'set(EXTENSION_DEPENDS "{" ".join(entry["build_dependencies"])}")' in cmake
    assert entry["category"] == "Segmentation"
    assert entry["scm_url"].startswith("https://") and entry["scm_url"].endswith("/SlicerLKSegment.git")
    assert b"\r" not in (ROOT / "LKSegment.json").read_bytes()
