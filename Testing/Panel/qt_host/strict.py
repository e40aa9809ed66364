"""Make PySide6 as unforgiving as PythonQt where it matters, and collect what Qt would swallow."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import types
from collections.abc import Iterator
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

QT_MODULES = (QtCore, QtGui, QtWidgets)

_set_attribute = QtCore.QObject.__setattr__
_lenient = 0


def _strict_set_attribute(self: Any, name: str, value: Any) -> None:
    # PySide keeps a signal on the object once it has been used.
    if not name.startswith("_") and not _lenient and not isinstance(value, QtCore.SignalInstance):
        raise AttributeError(
            f"{type(self).__name__}.{name} may not be assigned: call the setter, it works on PythonQt and PySide"
        )
    _set_attribute(self, name, value)


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """Assignments are allowed inside: PySide's own .ui loader puts every child on the root as an attribute."""
    global _lenient
    _lenient += 1
    try:
        yield
    finally:
        _lenient -= 1


def forbid_attribute_setting() -> None:
    """Setting a public attribute on any Qt object raises AttributeError from now on.

    PythonQt turns `w.text = "x"` into a property change and refuses an unknown name; PySide6 accepts both
    silently and changes nothing. Code that must run on both calls the setter, so every such line is a mistake.
    Names with a leading underscore stay allowed, for the stand-ins.
    """
    for module in QT_MODULES:
        for name in dir(module):
            candidate = getattr(module, name)
            is_qt_class = isinstance(candidate, type) and issubclass(candidate, QtCore.QObject)
            # Each class has a slot of its own, so each is changed; QObject's stays, it is the one called in the end.
            if is_qt_class and candidate is not QtCore.QObject:
                candidate.__setattr__ = _strict_set_attribute  # type: ignore[assignment, method-assign]


def keep_singletons_alive() -> None:
    """Give None, True and False so many references that they are never freed.

    PySide6 6.12 returns them without taking a reference, as if they were immortal; that they are from Python 3.12
    on. Before, some ten thousand calls free None and the interpreter aborts ("deallocating None").
    """
    if sys.version_info < (3, 12):
        for singleton in (None, True, False):
            # The reference count is the first field of every object.
            ctypes.c_ssize_t.from_address(id(singleton)).value += 1 << 40


class Complaints:
    """Exceptions raised in slots (Qt prints and forgets them) and Qt's own warnings, as sentences."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self._hooks: tuple[Any, Any] = (sys.excepthook, sys.unraisablehook)

    def listen(self) -> None:
        self._hooks = sys.excepthook, sys.unraisablehook
        sys.excepthook = self._on_exception
        sys.unraisablehook = self._on_unraisable
        QtCore.qInstallMessageHandler(self._on_message)

    def stop(self) -> None:
        sys.excepthook, sys.unraisablehook = self._hooks
        QtCore.qInstallMessageHandler(None)

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        self.sentences.append(f"{kind.__name__}: {error}")
        sys.__excepthook__(kind, error, trace)

    def _on_unraisable(self, unraisable: Any) -> None:
        self.sentences.append(f"{unraisable.exc_type.__name__}: {unraisable.exc_value} in {unraisable.object}")

    def _on_message(self, kind: QtCore.QtMsgType, context: QtCore.QMessageLogContext, message: str) -> None:
        # The offscreen platform cannot do these two, and says so for every window.
        if "This plugin does not support" in message:
            return
        if kind in (QtCore.QtMsgType.QtWarningMsg, QtCore.QtMsgType.QtCriticalMsg, QtCore.QtMsgType.QtFatalMsg):
            self.sentences.append(f"Qt: {message}")


def qt_module() -> types.ModuleType:
    """The module `qt` of Slicer: all names of Qt's modules in one."""
    module = types.ModuleType("qt")
    for source in QT_MODULES:
        for name in dir(source):
            if not name.startswith("__"):
                setattr(module, name, getattr(source, name))
    return module
