"""docs/networks.md says what the code says."""

from __future__ import annotations

from pathlib import Path

from LKSegmentLib import networks
from LKSegmentLib.networks import documentation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "networks.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == documentation.markdown(), (
        "run: python -m LKSegmentLib.networks.documentation"
    )


def test_the_page_names_every_network_and_every_published_figure(tmp_path: Path) -> None:
    target = tmp_path / "networks.md"
    assert documentation.main([str(target)]) == 0
    page = target.read_text(encoding="utf-8")
    for name in networks.names():
        facts = networks.facts(name)
        assert f"`{name}`" in page
        assert all(figure.figure in page and figure.note in page for figure in facts.published)
        assert all(option in page for option in networks.options(name))
