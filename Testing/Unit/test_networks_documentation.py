"""docs/networks.md says what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from LKSegmentLib import networks
from LKSegmentLib.networks import documentation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "networks.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("docs") / "networks.md"
    assert documentation.main([str(target)]) == 0
    return target.read_text(encoding="utf-8")


def test_the_page_is_up_to_date(page: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == page, "run: python -m LKSegmentLib.networks.documentation"


def test_the_page_names_every_network_and_every_published_figure(page: str) -> None:
    for name in networks.names():
        facts = networks.facts(name)
        assert f"`{name}`" in page
        assert all(figure.figure in page and figure.note in page for figure in facts.published)
        assert all(option in page for option in networks.options(name))
