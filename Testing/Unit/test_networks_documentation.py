"""docs/networks.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from LKSegmentLib import networks
from LKSegmentLib.cli import networks as command
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


@pytest.mark.parametrize("name", [name for name in networks.names() if not name.startswith("monai_")])
def test_the_command_tells_all_that_the_page_tells(name: str) -> None:
    told = networks.describe(name)
    printed = "\n".join(command.lines_about(told))
    for key in ("title", "summary", "status_note", "citation", "licence", "counting"):
        assert told[key] in printed
    assert f"{told['params']:,}" in printed and f"{told['macs']:,}" in printed
    assert all(entry in printed for key in ("known_problems", "deviations", "remarks") for entry in told[key])
    assert all(f"{one['quantity']}: {one['figure']}. {one['note']}" in printed for one in told["published"])
    assert told["receptive_fields"], "a receptive field for each stage"
    for field in told["receptive_fields"]:
        assert re.search(rf"^{field['stage']} +{field['stride']} +{field['voxels']}$", printed, re.MULTILINE)
    assert all(f"  {option}: " in printed for option in told["options"])
