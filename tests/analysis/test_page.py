"""Pages are one file, show what they are given, and never let data become markup."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from crossray.analysis import page


class Reader(HTMLParser):
    """Collects tags, attributes and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_data_never_becomes_markup() -> None:
    hostile = "<script>alert(1)</script> \" onload='x' &"
    html = page.document(
        hostile,
        [
            page.heading(hostile), page.paragraph(hostile, "notice"), page.table([hostile], [[hostile]]),
            page.study(hostile, [page.image(np.zeros((4, 4), np.uint8), hostile)], {hostile: hostile}),
            page.curve([(0, 1), (1, 2)], hostile),
        ],
    )  # fmt: skip
    reader = Reader(html)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert "".join(reader.text).count(hostile) >= 6


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = page.document("title", [page.image(np.zeros((8, 8), np.uint8), "black")])
    assert not re.search(r"https?://|url\(|@import|<link|<script", html)


def test_an_image_keeps_its_pixels() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    source = dict(Reader(page.image(pixels, "ramp")).tags)["img"]["src"]
    assert source is not None
    decoded = Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1])))
    assert np.array_equal(np.asarray(decoded), pixels)


def test_a_curve_rises_where_its_values_rise() -> None:
    svg = page.curve([(1, 0.0), (2, 1.0), (3, 0.5)], "score")
    points = re.search(r'points="([^"]+)"', svg)
    assert points is not None
    heights = [float(point.split(",")[1]) for point in points[1].split()]
    assert heights[1] < heights[2] < heights[0]  # the y axis of SVG points down
    assert page.curve([(1, 1.0)], "one point") == ""


def test_one_row_is_marked_as_own() -> None:
    html = page.table(["system", "score"], [["ours", "1"], ["theirs", "2"]], own=0)
    rows = [attributes for tag, attributes in Reader(html).tags if tag == "tr"]
    assert [row.get("class") for row in rows] == [None, "own", None]
