"""The explain page in a browser: pointing at a word changes what lies over the views, and nothing is loaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.browser.conftest import opened
from tests.browser.test_scorecard import CONTRAST

from crossray.analysis.attention import ReportAttention
from crossray.files.write import write_whole
from crossray.pages import page as parts
from crossray.pages.explain import Explanation, build_explanation

pytestmark = pytest.mark.browser

SIDE = 4
TEXT = "heart is large . small effusion ."
SPANS = ((0, 5), (6, 8), (9, 14), (15, 16), (17, 22), (23, 31), (32, 33))

#: Alpha of every pixel of a model's canvas, 0 where nothing is shown.
ALPHAS = """
([model, view]) => {
  const canvas = document.querySelectorAll(".explained")[model].querySelectorAll("canvas")[view];
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return Array.from(data).filter((_, index) => index % 4 === 3);
}
"""


def planted(layers: int) -> ReportAttention:
    """Word number n is read from cell n of the frontal view in the first layer, and of the lateral in the others."""
    weights = np.zeros((len(SPANS), layers, 2, SIDE, SIDE), np.float32)
    for word in range(len(SPANS)):
        for layer in range(layers):
            weights[word, layer, min(layer, 1)].flat[word] = 0.9
    windows = np.array([[0, 0, 1, 1], [0.1, 0, 0.9, 1]], float)
    return ReportAttention(TEXT, SPANS, weights, windows, np.array([True, True]))


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shade = np.tile(np.linspace(0, 255, 96).astype(np.uint8), (96, 1))
    images = (
        parts.image(shade, "frontal view of the study"),
        parts.image(np.vstack([shade, shade[:24]]), "lateral view"),
    )
    explanations = [
        Explanation(f"model {number}", "cmn", planted(layers), images, ("frontal view", "lateral view"))
        for number, layers in enumerate((2, 1))
    ]
    path = tmp_path_factory.mktemp("explain") / "page.html"
    write_whole(path, build_explanation("study-1", explanations, reference="Heart is large.", synthetic=True))
    return path


@pytest.fixture
def page(browser: Any, page_file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    # the tests read canvases often, the page never does
    with opened(browser, page_file, getattr(request, "param", {}), ignored="willReadFrequently") as page:
        yield page
        assert page.troubles == [page_file.as_uri()]  # nothing was loaded, logged or thrown


def strong(page: Any, model: int = 0, view: int = 0) -> list[int]:
    """Cells that a view shows in full color."""
    alphas = page.evaluate(ALPHAS, [model, view])
    return [cell for cell, alpha in enumerate(alphas) if alpha > 150]


def shown(page: Any, model: int = 0, view: int = 0) -> list[int]:
    return [cell for cell, alpha in enumerate(page.evaluate(ALPHAS, [model, view])) if alpha > 0]


def word(page: Any, text: str, model: int = 0) -> Any:
    return page.locator(".explained").nth(model).get_by_role("button", name=text, exact=True)


def test_a_word_under_the_pointer_shows_where_it_was_read(page: Any) -> None:
    assert shown(page) == shown(page, view=1) == list(range(len(SPANS)))  # the whole report at first
    word(page, "effusion").hover()
    assert strong(page) == strong(page, view=1) == [5]
    word(page, "Heart").hover()
    assert strong(page) == [0]
    page.mouse.move(1, 1)
    assert shown(page) == list(range(len(SPANS)))


def test_models_are_pointed_at_each_by_itself(page: Any) -> None:
    word(page, "large", model=1).hover()
    assert strong(page, model=1) == [2]
    assert shown(page, model=1, view=1) == []
    assert shown(page, model=0) == list(range(len(SPANS)))


def test_layers_and_sentences_are_chosen(page: Any) -> None:
    page.select_option("[name=layer]", "1")
    word(page, "effusion").hover()
    assert (strong(page), strong(page, view=1)) == ([], [5])
    page.mouse.move(1, 1)
    page.select_option("[name=layer]", "0")
    word(page, "effusion").hover()
    assert (strong(page), strong(page, view=1)) == ([5], [])
    page.get_by_label("sentences").check()
    word(page, "is").hover()
    assert shown(page) == [0, 1, 2, 3]
    assert page.locator(".word.shown").all_inner_texts() == ["Heart", "is", "large", "."]


def test_the_readout_says_it_in_words(page: Any) -> None:
    word(page, "effusion").hover()
    said = page.locator(".readout").first.inner_text()
    assert "“effusion”: 45% on the frontal view, 45% on the lateral view, 10% on no place of an image." in said
    assert "row 2, column 2 of 4 on the frontal view" in said


def test_keys_go_from_word_to_word_and_a_click_stays(page: Any) -> None:
    word(page, "Heart").focus()
    assert strong(page) == [0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert strong(page) == [2]
    assert page.evaluate("document.querySelectorAll('.word[tabindex=\"0\"]').length") == 2  # one a report
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    assert strong(page) == [6]
    page.keyboard.press("Tab")  # to the next report
    assert page.evaluate("document.activeElement.textContent") == "Heart"
    assert strong(page) == [2]
    word(page, "large").focus()
    page.keyboard.press("Escape")
    page.mouse.move(1, 1)
    assert word(page, "large").get_attribute("aria-pressed") == "false"


@pytest.mark.parametrize("page", [{"has_touch": True, "viewport": {"width": 390, "height": 844}}], indirect=True)
def test_on_a_phone_a_tap_shows_and_nothing_is_wider_than_the_screen(page: Any) -> None:
    word(page, "Small").tap()
    assert strong(page) == [4]
    assert word(page, "Small").get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_map_lies_over_what_the_model_saw(page: Any) -> None:
    boxes = page.evaluate(
        """Array.from(document.querySelectorAll(".frame"), frame => ["img", "canvas"].map(name => {
          const box = frame.querySelector(name).getBoundingClientRect();
          return [box.left, box.top, box.width, box.height];
        }))"""
    )
    (whole, over), (image, part) = boxes[:2]
    assert over == pytest.approx(whole, abs=1)
    left, top, width, height = image
    assert part == pytest.approx([left, top + 0.1 * height, width, 0.8 * height], abs=1)


@pytest.mark.parametrize("page", [{"color_scheme": scheme} for scheme in ("light", "dark")], indirect=True)
def test_text_can_be_read_in_light_and_dark(page: Any) -> None:
    word(page, "large").hover()
    for selector in (".word", ".word.shown", ".readout", ".controls label", ".explained figcaption", "h2"):
        ratios = page.evaluate(CONTRAST, selector)
        assert ratios
        assert min(ratios) >= 4.5, selector


def test_without_javascript_views_and_reports_remain(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.get_by_text("need JavaScript").is_visible()
    assert not page.locator(".controls").is_visible()
    assert page.locator(".report").first.inner_text() == "Heart is large. Small effusion."
    context.close()
