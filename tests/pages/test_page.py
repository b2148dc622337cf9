"""Pages are one file, show what they are given, and never let data become markup."""

import base64
import hashlib
import io
import re

import numpy as np
from PIL import Image
from tests.pages.html_reader import Reader

from crossray.pages import page

HOSTILE = "<script>alert(1)</script> \" onload='x' &"


def made(title: str = "title", note: str = "", parts: object = (), **options: str) -> str:
    """A page of the smallest template."""
    return page.document("ablation.html", title, note=note, parts=parts, **options)


def test_data_never_becomes_markup() -> None:
    table = page.table([HOSTILE], [[HOSTILE], [(HOSTILE, HOSTILE)]], caption=HOSTILE)
    image = page.image(np.zeros((4, 4), np.uint8), HOSTILE)
    alarm = page.piece("parts.html", "alarm", subject=HOSTILE, sentences=[HOSTILE])
    reader = Reader(made(HOSTILE, HOSTILE, [(table, [HOSTILE]), (image, []), (alarm, [])]))
    assert not reader.named("script")
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert "".join(reader.text).count(HOSTILE) == 11
    assert reader.named("img")[0]["alt"] == HOSTILE


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = made(parts=[(page.image(np.zeros((8, 8), np.uint8), "black"), [])])
    assert not re.search(r"https?://|url\(|@import|<link|<script", html)


def test_the_policy_allows_the_own_script_alone() -> None:
    script = page.asset("scorecard.js")
    html = made(script="scorecard.js")
    policy = next(tag["content"] for tag in Reader(html).named("meta") if "http-equiv" in tag)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert f"<script>{script}</script>" in html


def test_an_image_keeps_its_look_and_its_shape() -> None:
    across, down = np.meshgrid(np.arange(640), np.arange(800))
    pixels = ((across + down) * 255 / 1440).astype(np.uint8)
    tag = Reader(page.image(pixels, "ramp")).named("img")[0]
    assert tag["src"] is not None
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(tag["src"].split(",", 1)[1]))), dtype=int)
    assert decoded.shape == (320, 256)
    assert (tag["width"], tag["height"], tag["alt"]) == ("256", "320", "ramp")
    assert np.abs(decoded[::2, ::2] - pixels[1::5, 1::5]).max() < 8  # pixel 2 of the smaller one is pixel 5 of ours


def test_a_small_image_is_not_enlarged() -> None:
    tag = Reader(page.image(np.zeros((40, 30), np.uint8), "small")).named("img")[0]
    assert (tag["width"], tag["height"]) == ("30", "40")


def test_a_table_names_its_rows_and_columns() -> None:
    html = page.table(["system", "score"], [["ours", ("1", "[0, 2]")], ["theirs", "2"]], own=[0], caption="scores")
    reader = Reader(html)
    assert [heading["scope"] for heading in reader.named("th")] == ["col", "col", "row", "row"]
    assert [row.get("class") for row in reader.named("tr")] == [None, "own", None]
    assert "".join(reader.text) == "scoressystemscoreours1[0, 2]theirs2"
