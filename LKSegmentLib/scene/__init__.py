"""Slicer's data model (MRML) on one side, plain volumes and points on the other. Knows slicer and vtk; no torch, no Qt.

Import what is needed from its modules (`core`, `volumes`, `segments`, ...): this package itself imports nothing,
so that it can be named on a machine without slicer-core.
"""
