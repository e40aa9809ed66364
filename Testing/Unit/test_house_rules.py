"""The rules of docs/architecture.md, checked on the source: who imports whom, and what gets installed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "LKSegmentLib"
MODULE_FILE = ROOT / "LKSegment" / "LKSegment.py"

FLOORS = {
    "errors": 0,
    "version": 0,
    "operators": 0,
    "volumes": 0,
    "networks": 1,
    "packages": 2,
    "prompts": 2,
    "inference": 2,
    "inspection": 3,
    "training": 3,
    "evaluation": 3,
    "engine": 4,
    "scene": 5,
    "cli": 5,
    "scripting": 5,
    "__init__": 5,
    "__main__": 5,
}
"""Floor of every room; a single file directly in LKSegmentLib is a room too."""

EVERYONE_MAY_IMPORT = {"errors", "version"}
SAME_FLOOR_ALLOWED = {
    ("inference", "packages"),
    ("inference", "prompts"),
    ("training", "evaluation"),
    ("evaluation", "inspection"),
    ("__init__", "scripting"),
    ("__main__", "cli"),
}
INSIDE_FUNCTIONS_ONLY = {("cli", "scene"), ("cli", "scripting")}
QT = {"qt", "ctk", "PySide6", "PySide2", "PyQt5", "PyQt6", "PythonQt"}
SLICER = {"slicer", "vtk", "vtkmodules"}
WITHOUT_TORCH = {"volumes", "prompts", "scene", "errors", "version", "scripting", "__init__"}
"""Rooms that must not import torch when they are imported: Slicer's own process imports them."""
PANEL_MAY_IMPORT = {"vtk", "slicer", "numpy", "qt", "ctk", "LKSegmentLib"} | set(sys.stdlib_module_names)


@dataclass(frozen=True)
class Import:
    """One imported dotted name: where, and whether it happens when the file is imported."""

    name: str
    line: int
    at_file_scope: bool
    only_for_types: bool


def imports_of(path: Path) -> list[Import]:
    """Every import of a file as absolute dotted names; `from a import b` counts as `a.b`."""
    package = ["LKSegmentLib", *path.relative_to(LIBRARY).parent.parts] if path.is_relative_to(LIBRARY) else []
    found: list[Import] = []

    def visit(node: ast.AST, in_function: bool, for_types: bool) -> None:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{start}.{alias.name}" for alias in node.names]
        else:
            names = []
        found.extend(Import(name, node.lineno, not in_function, for_types) for name in names)  # type: ignore[attr-defined]
        in_function = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, in_function, for_types or guarded)

    visit(ast.parse(path.read_text(encoding="utf-8")), False, False)
    return found


def room_of(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def room_of_import(name: str) -> str | None:
    """The room an absolute name leads to; None when it is not ours. A name of the package itself is `__init__`."""
    parts = name.split(".")
    if parts[0] != "LKSegmentLib":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "__init__"


def library_files() -> list[Path]:
    return sorted(LIBRARY.rglob("*.py"))


def violations() -> Iterator[str]:
    for path in library_files():
        own = room_of(path)
        where = path.relative_to(ROOT)
        if own not in FLOORS:
            yield f"{where}: the room {own!r} is not in docs/architecture.md"
            continue
        for found in imports_of(path):
            top = found.name.split(".")[0]
            here = f"{where}:{found.line} imports {found.name}"
            other = room_of_import(found.name)
            if other is not None and other != own and other not in EVERYONE_MAY_IMPORT:
                pair = (own, other)
                same_floor = FLOORS[other] == FLOORS[own]
                inside = pair in INSIDE_FUNCTIONS_ONLY and not found.at_file_scope
                if FLOORS[other] > FLOORS[own]:
                    yield f"{here}: {other} is on a higher floor than {own}"
                elif same_floor and pair not in SAME_FLOOR_ALLOWED and not inside:
                    yield f"{here}: rooms on one floor do not import each other"
            if top in QT:
                yield f"{here}: only LKSegment/ knows Qt"
            if top in SLICER and own != "scene":
                yield f"{here}: nothing below scene knows Slicer"
            if top == "torch" and own in WITHOUT_TORCH and found.at_file_scope and not found.only_for_types:
                yield f"{here}: torch is imported inside functions here, or not at all"
            if top == "torch" and own == "scene":
                yield f"{here}: scene never imports torch"


def test_rooms_import_only_downwards() -> None:
    assert not list(violations())


@pytest.mark.parametrize(
    ("room", "line", "expected"),
    [
        ("volumes", "from LKSegmentLib.scene import core", "higher floor"),
        ("networks", "from ..inference import windows", "higher floor"),
        ("networks", "def f():\n    from LKSegmentLib.engine.client import EngineClient", "higher floor"),
        ("scene", "import torch", "torch"),
        ("scene", "def f():\n    import torch", "never imports torch"),
        ("engine", "import slicer", "knows Slicer"),
        ("scene", "from PySide6 import QtCore", "knows Qt"),
        ("volumes", "from LKSegmentLib.operators import depthwise", "one floor"),
        ("cli", "from LKSegmentLib.scene import core", "one floor"),
        ("prompts", "import torch", "inside functions"),
    ],
)
def test_a_wrong_import_is_noticed(
    room: str, line: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "LKSegmentLib" / room).mkdir(parents=True)
    (tmp_path / "LKSegmentLib" / room / "wrong.py").write_text(line, encoding="utf-8")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "LIBRARY", tmp_path / "LKSegmentLib")
    assert any(expected in sentence for sentence in violations())


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("cli", "def f():\n    from LKSegmentLib.scene import core"),
        ("inference", "from LKSegmentLib.packages import store"),
        ("volumes", "from LKSegmentLib.errors import InputError"),
        ("engine", "from LKSegmentLib.inference import clicks"),
        ("prompts", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ],
)
def test_an_allowed_import_passes(room: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "LKSegmentLib" / room).mkdir(parents=True)
    (tmp_path / "LKSegmentLib" / room / "right.py").write_text(line, encoding="utf-8")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "LIBRARY", tmp_path / "LKSegmentLib")
    assert not list(violations())


def test_the_panel_imports_nothing_else_at_file_scope() -> None:
    for found in imports_of(MODULE_FILE):
        top = found.name.split(".")[0]
        assert top in PANEL_MAY_IMPORT, f"LKSegment.py:{found.line} imports {found.name}"
        assert top != "torch"


def test_the_panel_stays_thin() -> None:
    lines = MODULE_FILE.read_text(encoding="utf-8").count("\n")
    assert lines < 600, f"LKSegment.py has {lines} lines: move decisions into LKSegmentLib"


def test_what_slicer_imports_needs_no_torch_and_no_other_third_party_package() -> None:
    """What the panel imports, in a Python where everything Slicer does not bundle is missing."""
    scene = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((LIBRARY / "scene").glob("*.py"))
        if path.name != "__init__.py"
    ]
    panel = sorted(set(_modules_of_the_panel()))
    script = f"""
import importlib, sys
BLOCKED = ("torch", "monai", "safetensors", "skimage", "scipy", "rich", "matplotlib", "psutil", "PySide6", "nibabel")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{{name}} must not be imported here")
sys.meta_path.insert(0, Refuse())
for name in {["LKSegmentLib", "LKSegmentLib.engine.client", *panel, *scene]!r}:
    importlib.import_module(name)
loaded = [name for name in BLOCKED if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def _modules_of_the_panel() -> Iterator[str]:
    """The modules of ours that LKSegment.py imports anywhere, as importable names."""
    for found in imports_of(MODULE_FILE):
        parts = found.name.split(".")
        if parts[0] != "LKSegmentLib":
            continue
        candidate = ROOT.joinpath(*parts)
        is_module = candidate.with_suffix(".py").is_file() or (candidate / "__init__.py").is_file()
        yield ".".join(parts if is_module else parts[:-1])


# What is installed ------------------------------------------------------------------------------------------


def listed(path: Path, variable: str) -> list[str]:
    """The entries of `set(variable ...)` in a CMakeLists.txt."""
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
    match = re.search(rf"set\(\s*{variable}\s+(.*?)\)", text, re.DOTALL)
    assert match is not None, f"{path} sets no {variable}"
    return match.group(1).split()


def test_every_library_file_is_listed_for_installation() -> None:
    """A file missing here works in a checkout and is absent from the installed extension."""
    cmake = LIBRARY / "CMakeLists.txt"
    hidden = ("CMakeLists.txt", ".pyc")
    there = {
        path.relative_to(LIBRARY).as_posix()
        for path in LIBRARY.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith(hidden)
    }
    scripts, resources = listed(cmake, "LIBRARY_SCRIPTS"), listed(cmake, "LIBRARY_RESOURCES")
    assert len(scripts) == len(set(scripts)) and len(resources) == len(set(resources))
    _assert_same(set(scripts), {name for name in there if name.endswith(".py")}, cmake, "LIBRARY_SCRIPTS")
    _assert_same(set(resources), {name for name in there if not name.endswith(".py")}, cmake, "LIBRARY_RESOURCES")


def test_every_resource_of_the_panel_is_listed_for_installation() -> None:
    module = MODULE_FILE.parent
    there = {path.relative_to(module).as_posix() for path in (module / "Resources").rglob("*") if path.is_file()}
    _assert_same(set(listed(module / "CMakeLists.txt", "MODULE_PYTHON_RESOURCES")), there, module, "RESOURCES")
    assert [path.name for path in module.glob("*.py")] == ["LKSegment.py"], "Slicer takes each .py here for a module"


def _assert_same(listed_names: set[str], there: set[str], where: Path, variable: str) -> None:
    for verb, names in (("add to", there - listed_names), ("remove from", listed_names - there)):
        lines = "\n".join(f"  {name}" for name in sorted(names))
        assert not names, f"{verb} {variable} in {where.relative_to(ROOT)}:\n{lines}"
