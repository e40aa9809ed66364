"""The report of an inspection: right pictures, right curves, and nothing that would have to come from the net."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK
from inspection_support import oblique_volume

from LKSegmentLib.cli import inspect_pictures
from LKSegmentLib.cli.curves import HEIGHT, WIDTH, curve_svg
from LKSegmentLib.cli.inspect_pictures import SIZE, MapPictures, plain_slices, png_bytes
from LKSegmentLib.cli.inspect_report import Picture, Report, number_words
from LKSegmentLib.inspection import Map, Table
from LKSegmentLib.inspection.maps import CASE, SENTENCE, WINDOW_VALUES
from LKSegmentLib.scene.map_nodes import colors_of
from LKSegmentLib.volumes import Volume

VOID = {"meta", "img", "line", "circle", "polyline", "br"}


class Page(HTMLParser):
    """Checks that every tag is closed, and keeps tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def a_map(volume: Volume, name: str = "gate <1>", **passport: object) -> Map:
    values = np.linspace(0, 1, volume.array.size, dtype=np.float32).reshape(volume.grid.shape)
    told = {"unit": "none", "range": [0.0, None], "neutral": 0.5, "layer": "a & b", "operator": "w < 1", **passport}
    return Map(name, volume.with_array(values), told)


def a_table(name: str = "curve") -> Table:
    rows = ((0.0, 1.0, "a"), (50.0, 0.4, None), (100.0, None, "<b>"))
    return Table(name, ("x (%)", "this & that", "words"), rows, "x (%)", ("this & that",), {"operator": "a < b"})


def test_the_page_holds_everything_escaped_and_loads_nothing() -> None:
    volume = oblique_volume((6, 7, 8))
    found = a_map(volume)
    tested = Picture(found, b"png", "Colours run from 0 to 1.", "This map does not beat a random one.")
    untested = Picture(a_map(volume, "other"), b"png", "Colours run.")
    files = ["labels.nrrd"]
    report = Report("What <model> showed", {"image": "a <b>.nii"}, [tested, untested], "views", ["Reach."],
                    [(a_table(), "labels-curve.csv")], files)  # fmt: skip
    page = Page(report.html())
    for words in (
        SENTENCE, "What <model> showed", "a <b>.nii", "gate <1>", "w < 1", "a & b", "0, open", "Reach.",
        "This map does not beat a random one.", "was not tested with these weights", "labels-curve.csv", "<b>", "–",
        "labels.nrrd", "this & that",
    ):  # fmt: skip
        assert words in page.text, words
    assert [tag for tag, _ in page.tags].count("svg") == 1
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for key in ("src", "href", "srcset", "data", "action", "xlink:href"):
            assert (attributes.get(key) or "data:").startswith("data:"), (tag, attributes)
    assert "http" not in report.html() and "@import" not in report.html() and "url(" not in report.html()
    assert "prefers-color-scheme: dark" in report.html()
    # The sentence that is always visible comes before everything else in the body.
    assert page.text.split(SENTENCE)[0].count("What <model>") == 1, "only the title of the window comes before"


def test_long_values_and_long_tables_point_to_their_files() -> None:
    found = a_map(oblique_volume((4, 4, 4)), "gate", **{"values of windows": [{"value": 0.5}] * 200})
    rows = tuple((float(n), float(n)) for n in range(250))
    table = Table("long", ("x", "y"), rows, "x", ("y",))
    page = Page(Report("t", {}, [Picture(found, b"", "")], "views", tables=[(table, "long.csv")]).html())
    assert "all of it in the JSON file" in page.text and "50 rows more are in long.csv" in page.text


def test_what_no_test_knows_is_not_said_to_be_untested_and_percentiles_are_words() -> None:
    volume = oblique_volume((4, 4, 4))
    case = {"least": 0.0, "low": 0.25, "high": 0.75, "most": 1.0}
    gate = Picture(a_map(volume, kind="native gate", **{CASE: case}), b"", "")
    text = Page(Report("t", {}, [gate], "views").html()).text
    assert "lksegment evaluate maps" in text
    assert "0 to 1; 2 % of the voxels are below 0.25, 99.8 % below 0.75" in text
    for told in ({"kind": "gradient"}, {"kind": "difference"}, {WINDOW_VALUES: []}, {"space": "kernel"}):
        text = Page(Report("t", {}, [Picture(a_map(volume, **told), b"", "")], "views").html()).text
        assert "There is no test" in text and "evaluate maps" not in text, told


def test_long_names_stay_inside_the_picture() -> None:
    names = tuple(f"value {n} (logit per unit of the prepared image)" for n in range(8))
    table = Table("t", ("x", *names), tuple((float(x), *(1.0,) * 8) for x in range(3)), "x", names)
    root = ElementTree.fromstring(curve_svg(table) or "")
    height = float((root.get("viewBox") or "").split()[3])
    legend = [text for text in root.iter("text") if float(text.get("x", 0)) > WIDTH - 170 and text.text]
    assert max(len(text.text or "") for text in legend) <= 20 and height > HEIGHT
    assert max(float(text.get("y", 0)) for text in legend) < height
    assert " ".join(text.text or "" for text in legend) == " ".join(names)


def test_a_curve_is_where_its_numbers_are() -> None:
    table = Table("c", ("x", "y", "flat"), tuple((x, x * x, 2.0) for x in (0, 1, 2, 3)), "x", ("y", "flat"))
    svg = curve_svg(table)
    assert svg is not None
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
    lines = [
        np.array([[float(v) for v in pair.split(",")] for pair in (line.get("points") or "").split()])
        for line in root.iter("polyline")
    ]
    assert len(lines) == 2
    squares = lines[0]
    assert np.allclose(np.diff(squares[:, 0]), np.diff(squares[0:2, 0]), atol=0.2), "x is even"
    heights = squares[0, 1] - squares[:, 1]
    assert np.allclose(heights / heights[1], [0, 1, 4, 9], atol=0.2), "y is square, upwards"
    assert np.ptp(lines[1][:, 1]) == 0
    # The tick that says 4 is at the height of the value 4.
    ticks = {text.text: float(text.get("y", 0)) - 4 for text in root.iter("text") if text.get("text-anchor") == "end"}
    assert ticks["4"] == pytest.approx(squares[2, 1], abs=0.2)
    every = [float(v) for element in root.iter() for key in ("x", "y", "cx", "cy") if (v := element.get(key))]
    assert min(every) >= 0 and max(every) <= WIDTH


def test_tables_that_are_no_curves_have_none_and_gaps_are_left_out() -> None:
    assert curve_svg(Table("t", ("a", "b"), ((1.0, 2.0),))) is None
    assert curve_svg(Table("t", ("a", "b"), ((1.0, 2.0),), "a", ("b",))) is None
    assert curve_svg(Table("t", ("a", "b"), (("one", 2.0), ("two", 3.0)), "a", ("b",))) is None
    svg = curve_svg(a_table())
    assert svg is not None and len(re.findall("<circle", svg)) == 2


def test_counts_have_no_ticks_in_between() -> None:
    for last in (2, 3, 12):
        table = Table("t", ("click", "n"), tuple((n, float(n)) for n in range(1, last + 1)), "click", ("n",))
        root = ElementTree.fromstring(curve_svg(table) or "")
        below = [text.text or "" for text in root.iter("text") if text.get("text-anchor") == "middle"]
        assert all(float(words).is_integer() for words in below if words != "click"), below


def test_numbers_are_short() -> None:
    assert [number_words(value) for value in (3, 3.0, 0.123456, 1e-9, float("nan"))] == [
        "3", "3", "0.1235", "1e-09", "nan",
    ]  # fmt: skip


def test_plain_slices_show_the_map_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bright voxel of the map, off the middle, in a volume with LPS axes: each view has it on the right side."""
    matrix = np.diag([-2.0, -2.0, 4.0, 1.0])
    volume = Volume(np.zeros((10, 16, 20), np.float32), matrix)
    values = np.zeros((10, 16, 20), np.float32)
    values[8, 3, 2] = 1.0  # superior, anterior and right of the middle
    found = Map("spot", volume.with_array(values), {"neutral": None, "range": [0.0, 1.0]})
    picture = plain_slices(volume, None, found, volume.grid.ras_of((2, 3, 8)))
    width, height = SIZE
    bright = colors_of("LKSegment sequential")[255]
    for view in range(3):
        part = picture[:, view * (width + 4) : view * (width + 4) + width].astype(float)
        rows, columns = np.nonzero(part.sum(-1) > 60)
        assert rows.size, "the spot is in every view"
        assert part[rows, columns].mean(0) == pytest.approx(0.5 * bright, abs=2)
        assert rows.mean() < height / 2, "anterior and superior are up"
        # The body's right is on the left of the picture; in the sagittal view its front is.
        assert columns.mean() < width / 2
    outlined = plain_slices(volume, volume.with_array((values > 0).astype(np.uint8)), found, (0.0, 0.0, 0.0))
    assert not (outlined == inspect_pictures._OUTLINE).all(-1).any(), "no segment in the slices of another place"
    here = volume.grid.ras_of((2, 3, 8))
    outlined = plain_slices(volume, volume.with_array((values > 0).astype(np.uint8)), found, here)
    assert (outlined == inspect_pictures._OUTLINE).all(-1).any()


def test_without_slicer_the_pictures_are_plain_slices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inspect_pictures, "slicer_views_problem", lambda: "Slicer's views need something.")
    volume = oblique_volume((12, 14, 16))
    labels = volume.with_array(np.zeros(volume.grid.shape, np.uint8))
    painter = MapPictures(volume, labels, [], volume.grid.centre_ras)
    assert "no slicer-core" in painter.kind
    picture = painter.of(a_map(volume))
    assert picture.shape == (SIZE[1], 3 * SIZE[0] + 8, 3)
    place = [float(value) for value in volume.grid.ras_of((2, 3, 4))]
    reach = painter.of(a_map(volume, "reach", **{"voxel RAS mm": place}))
    assert not np.array_equal(reach, picture), "the reach is shown where it was asked for"
    np.testing.assert_array_equal(reach, plain_slices(volume, labels, a_map(volume), place))
    kernel = painter.of(a_map(volume, "kernel", space="kernel"))
    assert not np.array_equal(kernel, picture)
    path = tmp_path / "p.png"
    path.write_bytes(png_bytes(picture))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), picture)


def test_slicers_views_show_image_outline_and_map() -> None:
    pytest.importorskip("slicer")
    problem = inspect_pictures.slicer_views_problem()
    if problem is not None:
        pytest.skip(problem)
    volume = oblique_volume((24, 24, 24))
    k, j, i = np.indices(volume.grid.shape)
    ball = (k - 12) ** 2 + (j - 12) ** 2 + (i - 12) ** 2 < 40
    labels = volume.with_array(ball.astype(np.uint8))
    painter = MapPictures(volume, labels, ["ball"], volume.grid.centre_ras)
    plain = painter.of(a_map(volume, "low", range=[0.0, 1.0]))
    assert plain.shape == (SIZE[1], 3 * SIZE[0] + 8, 3)
    spread = plain.astype(int).max(-1) - plain.astype(int).min(-1)
    assert (spread > 60).mean() > 0.1, "the map is in colour over the grey image"


def test_a_kernel_by_itself_is_drawn_whole() -> None:
    volume = Volume(np.zeros((5, 5, 5), np.float32), np.eye(4))
    kernel = a_map(volume, space="kernel")
    lowest = plain_slices(None, None, kernel, (2.0, 2.0, 2.0))
    view = lowest[:, : SIZE[0]]
    inside = view[view.any(axis=2)]
    assert len(inside) == SIZE[1] * SIZE[1], "a square of five by five taps as high as the view, none of it left out"
