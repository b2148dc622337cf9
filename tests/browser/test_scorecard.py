"""The scorecard in a browser: it loads nothing, shows everything, filters, and fits a phone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.conftest import opened

from crossray.evaluation.evaluate import evaluate
from crossray.files.write import write_whole
from crossray.pages.scorecard.build import build_scorecard
from crossray.pages.scorecard.runs import read_systems

pytestmark = pytest.mark.browser

#: Color contrast of text and what is behind it, as WCAG 2 computes it, for elements that match a selector.
CONTRAST = """
selector => Array.from(document.querySelectorAll(selector), element => {
  const canvas = document.createElement("canvas").getContext("2d");
  const numbers = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data; };
  let behind = element, paper;
  do { paper = numbers(getComputedStyle(behind).backgroundColor); behind = behind.parentElement; }
  while (paper[3] === 0 && behind);
  const light = colour => { const [r, g, b] = Array.from(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const style = getComputedStyle(element);
  const [low, high] = [light(numbers(element instanceof SVGElement ? style.fill : style.color)), light(paper)].sort();
  return (Math.max(low, high) + 0.05) / (Math.min(low, high) + 0.05);
})
"""


@pytest.fixture(scope="module")
def page_file(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_whole(path, build_scorecard(read_systems(runs), studies=12))
    return path


@pytest.fixture
def page(browser: Any, page_file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page in a window of its own; parameters are options of the window."""
    with opened(browser, page_file, getattr(request, "param", {})) as page:
        yield page


def visible(page: Any) -> list[str]:
    """Marks of the studies that are shown."""
    return [study.get_attribute("data-marks") for study in page.locator(".study").all() if study.is_visible()]


def marks(text: str) -> list[tuple[str, str, str]]:
    return [tuple(mark.split(":")) for mark in text.split()]  # type: ignore[misc]


def test_it_opens_from_a_file_and_loads_nothing(page: Any, page_file: Path) -> None:
    page.wait_for_load_state("networkidle")
    assert page.troubles == [page_file.as_uri()]
    assert page.title() == "CrossRay scorecard: careful, hasty"


def test_images_are_whole_and_described(page: Any) -> None:
    images = page.evaluate("Array.from(document.images, image => [image.naturalWidth, image.alt])")
    assert len(images) > 12
    assert all(width > 0 and "synthetic radiograph" in alt for width, alt in images)


def test_marks_stand_in_the_texts_with_what_they_mean(page: Any) -> None:
    for kind, sign in (("agree", "✓"), ("false", "✗"), ("missed", "○")):
        found = page.locator(f".study mark.{kind}")
        assert found.count() > 0
        assert sign in found.first.inner_text()
        assert found.first.get_attribute("title")
    decorations = page.evaluate(
        "['agree', 'false', 'missed'].map(kind => getComputedStyle(document.querySelector(`.study mark.${kind}`))"
        ".textDecorationStyle)"
    )
    assert decorations == ["solid", "wavy", "dashed"]  # told apart without colors


def test_marks_agree_with_the_list_beneath_each_report(page: Any) -> None:
    for study in page.locator(".study").all():
        for number, text in enumerate(study.locator("[data-system]").all()):
            listed = {item.get_attribute("class") for item in text.locator(".chips li:not(.none)").all()}
            assert listed == {
                kind for system, kind, _ in marks(study.get_attribute("data-marks")) if system == str(number)
            }
            assert text.locator("mark.agree").count() > 0 or "agree" not in listed


def test_boxes_filter_the_studies(page: Any) -> None:
    everything = visible(page)
    page.locator("[name=kind][value=false]").check()
    expected = [text for text in everything if any(kind == "false" for _, kind, _ in marks(text))]
    assert 0 < len(expected) < len(everything)
    assert visible(page) == expected
    assert page.locator("output").inner_text() == f"{len(expected)} of {len(everything)} studies"
    observation = marks(expected[0])[0][2]
    page.locator(f"[name=observation][value={observation}]").check()
    assert visible(page) == [
        text for text in expected if any(kind == "false" and name == observation for _, kind, name in marks(text))
    ]
    page.locator("button[type=reset]").click()
    page.wait_for_function("document.querySelectorAll('.study[hidden]').length === 0")
    assert visible(page) == everything


def test_a_system_is_shown_alone_and_filters_speak_of_it_alone(page: Any) -> None:
    everything = visible(page)
    page.locator("[name=system][value='1']").check()
    assert page.locator("[data-system='0']:visible").count() == 0
    assert page.locator("[data-system='1']:visible").count() == len(everything)
    page.locator("[name=kind][value=agree]").check()
    assert visible(page) == [text for text in everything if any(mark[:2] == ("1", "agree") for mark in marks(text))]


def test_words_are_found_in_texts_and_names(page: Any) -> None:
    name = page.locator(".study h3").nth(3).inner_text().split()[0]
    page.locator("input[type=search]").fill(name.upper())
    assert page.locator(".study:visible").count() == 1
    page.locator("input[type=search]").fill("no report has this word")
    assert page.locator("output").inner_text().startswith("0 of")


def test_the_keyboard_reaches_and_uses_the_filter(page: Any) -> None:
    page.locator("nav a").last.focus()
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "kind":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Space")
    assert page.locator("[name=kind]").first.is_checked()


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_all_studies_are_there(page: Any) -> None:
    assert page.locator(".study:visible").count() == 12
    assert not page.locator(".filters").is_visible()


@pytest.mark.parametrize("page", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
def test_it_fits_a_phone(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    letters = page.evaluate(
        "Array.from(document.querySelectorAll('svg[role=img] text'), t => t.getBoundingClientRect().height)"
    )
    assert min(letters) > 9  # charts are not shrunk until nobody can read them


@pytest.mark.parametrize("page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_text_stands_out_from_its_ground(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    kinds = "p, small, th, td, caption, figcaption, a, li, summary, label, button, h1, h2, h3, h4, svg text, strong"
    marked = "mark.agree, mark.false, mark.missed, .negative, .chips li"
    for selector in (*kinds.split(", "), *marked.split(", ")):
        contrasts = page.evaluate(CONTRAST, selector)
        assert contrasts, selector
        assert min(contrasts) >= 4.5, selector


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_dark_is_dark(page: Any) -> None:
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 22, 29)"


def test_print_leaves_out_what_paper_cannot_do(page: Any) -> None:
    page.emulate_media(media="print")
    assert not page.locator(".filters").is_visible()
    assert page.locator(".study:visible").count() == 12


def test_a_hostile_report_runs_nothing(browser: Any, tmp_path: Path) -> None:
    hostile = "<script>window.harmed = 1</script><img src=x onerror='window.harmed = 1'> cardiomegaly"
    path = tmp_path / "theirs.jsonl"
    rows = [{"id": f"{number}{hostile}", "prediction": hostile, "reference": hostile} for number in range(3)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    evaluate(path, meteor="no", resamples=20).save(tmp_path / "theirs.scores.json")
    (system,) = read_systems([path])
    write_whole(tmp_path / "page.html", build_scorecard([system], title=hostile))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("window.harmed") is None
    assert page.locator("article p", has_text="window.harmed = 1").count() > 0
    page.close()
