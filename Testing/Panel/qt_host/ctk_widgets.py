"""Stand-ins for the CTK widgets a panel uses: same names, properties and signals, plain Qt inside."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

_HEADER_HEIGHT = 26


class ctkCollapsibleButton(QtWidgets.QAbstractButton):  # noqa: N801 (CTK's name)
    """A titled section that hides its contents when collapsed. Like CTK's, it is itself the button."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_collapsed = False
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, _HEADER_HEIGHT, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred)
        self.toggled.connect(lambda expanded: self.setCollapsed(not expanded))

    def isCollapsed(self) -> bool:
        return self._is_collapsed

    def setCollapsed(self, collapsed: bool) -> None:
        if collapsed == self._is_collapsed:
            return
        self._is_collapsed = collapsed
        self.setChecked(not collapsed)
        self._show_contents()
        self.contentsCollapsed.emit(collapsed)

    # The name of the getter is the name of the property, as in CTK: read it through property("collapsed").
    collapsed = QtCore.Property(bool, isCollapsed, setCollapsed, notify=contentsCollapsed)

    def _show_contents(self) -> None:
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly):
            child.setVisible(not self._is_collapsed)
        self.setMaximumHeight(_HEADER_HEIGHT if self._is_collapsed else 16777215)

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        self._show_contents()
        super().showEvent(event)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < _HEADER_HEIGHT

    def sizeHint(self) -> QtCore.QSize:
        layout = self.layout()
        if self._is_collapsed or layout is None:
            return QtCore.QSize(100, _HEADER_HEIGHT)
        return layout.totalSizeHint()

    def minimumSizeHint(self) -> QtCore.QSize:
        layout = self.layout()
        if self._is_collapsed or layout is None:
            return QtCore.QSize(100, _HEADER_HEIGHT)
        return layout.totalMinimumSize()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width(), _HEADER_HEIGHT - 4)
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(8, 6, 10, 10)
        element = QtWidgets.QStyle.PrimitiveElement
        shape = element.PE_IndicatorArrowRight if self._is_collapsed else element.PE_IndicatorArrowDown
        painter.drawPrimitive(shape, arrow)
        painter.drawText(
            option.rect.adjusted(26, 0, -6, 0),
            QtCore.Qt.AlignmentFlag.AlignVCenter | QtCore.Qt.AlignmentFlag.AlignLeft,
            self.text(),
        )


class ctkSliderWidget(QtWidgets.QWidget):  # noqa: N801 (CTK's name)
    """A slider and a spin box for one number."""

    valueChanged = QtCore.Signal(float)
    _STEPS = 1000

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._slider.setRange(0, self._STEPS)
        self._spin = QtWidgets.QDoubleSpinBox()
        self._spin.setRange(0.0, 99.0)
        layout.addWidget(self._slider)
        layout.addWidget(self._spin)
        self._slider.valueChanged.connect(self._on_slider)
        self._spin.valueChanged.connect(self._on_spin)

    def _on_slider(self, step: int) -> None:
        low, high = self._spin.minimum(), self._spin.maximum()
        self._spin.setValue(low + (high - low) * step / self._STEPS)

    def _on_spin(self, value: float) -> None:
        low, high = self._spin.minimum(), self._spin.maximum()
        blocked = self._slider.blockSignals(True)
        self._slider.setValue(round((value - low) / (high - low) * self._STEPS) if high > low else 0)
        self._slider.blockSignals(blocked)
        self.valueChanged.emit(value)

    def setValue(self, value: float) -> None:
        self._spin.setValue(value)

    def setMinimum(self, value: float) -> None:
        self._spin.setMinimum(value)

    def setMaximum(self, value: float) -> None:
        self._spin.setMaximum(value)

    def setSingleStep(self, value: float) -> None:
        self._spin.setSingleStep(value)

    def setPageStep(self, value: float) -> None:
        self._slider.setPageStep(round(value * self._STEPS))

    def setDecimals(self, count: int) -> None:
        self._spin.setDecimals(count)

    value = QtCore.Property(float, lambda self: self._spin.value(), setValue)
    minimum = QtCore.Property(float, lambda self: self._spin.minimum(), setMinimum)
    maximum = QtCore.Property(float, lambda self: self._spin.maximum(), setMaximum)
    singleStep = QtCore.Property(float, lambda self: self._spin.singleStep(), setSingleStep)
    pageStep = QtCore.Property(float, lambda self: self._slider.pageStep() / self._STEPS, setPageStep)
    decimals = QtCore.Property(int, lambda self: self._spin.decimals(), setDecimals)


class ctkPathLineEdit(QtWidgets.QWidget):  # noqa: N801 (CTK's name)
    """A path with a browse button."""

    currentPathChanged = QtCore.Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._line = QtWidgets.QLineEdit()
        browse = QtWidgets.QToolButton()
        browse.setText("...")
        layout.addWidget(self._line)
        layout.addWidget(browse)
        self._line.textChanged.connect(self.currentPathChanged)

    def setCurrentPath(self, path: str) -> None:
        self._line.setText(path)

    currentPath = QtCore.Property(str, lambda self: self._line.text(), setCurrentPath)
