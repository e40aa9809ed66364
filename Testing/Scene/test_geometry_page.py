"""The geometry table in the documentation is the one that the code gives, and every row is within half a voxel."""

from __future__ import annotations

import re

from geometry_table import PAGE, page


def test_the_page_is_up_to_date_and_within_half_a_voxel() -> None:
    fresh = page()
    assert PAGE.read_text(encoding="utf-8") == fresh, "run Testing/Scene/geometry_table.py"
    rows = re.findall(r"\| (\d+) \| ([\d.]+) mm \| ([\d.]+) mm \| ([\d.]+) mm \|", fresh)
    assert sum(int(row[0]) for row in rows) >= 48 + 3
    for _, mask, overlay, half in rows:
        assert float(mask) <= float(half) and float(overlay) <= float(half)
