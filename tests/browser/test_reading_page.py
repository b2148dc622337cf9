"""The reading page in a browser: a study arrives, is read with the keyboard alone, and is taken along."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from tests.serving.conftest import png, save_model
from tests.serving.live import running

from crossray.serving.keys import make_key
from crossray.serving.settings import Settings

pytestmark = pytest.mark.browser

CONTRAST = """selector => {
  const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => (v /= 255) <= 0.03928
    ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = element => { for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour; } return "rgb(255, 255, 255)"; };
  return Array.from(document.querySelectorAll(selector)).filter(e => e.offsetParent && e.textContent.trim()).map(e => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05); });
}"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("read"))


@pytest.fixture(scope="module")
def address(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = f"sqlite:///{tmp_path_factory.mktemp('store') / 'j.db'}"
    # every sentence is doubtful
    with running(Settings(models={"tiny": model}, store=store, decoders=1, doubt=1.0)) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    page = browser.new_page(**getattr(request, "param", {}))
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.goto(address)
    yield page
    assert not faults
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
    page.close()


def send(page: Any, *contents: bytes) -> None:
    page.wait_for_selector("#model option", state="attached")
    files = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": content} for n, content in enumerate(contents)]
    page.set_input_files("#files", files)
    page.wait_for_selector(".sentence")


def test_a_study_is_read_with_the_keyboard_alone(page: Any) -> None:
    send(page, png(1, (300, 240)), png(2, (300, 200)))
    assert "Not a medical device" in page.locator("header").inner_text()
    assert page.locator("canvas").count() == 2
    first = page.locator(".sentence").first
    assert first.evaluate("e => e === document.activeElement")
    assert first.locator(".mark.doubt").count() == 1
    assert page.locator("canvas").first.get_attribute("data-heat") == "true"
    page.keyboard.press("e")
    page.keyboard.press("Control+A")
    page.keyboard.type("The heart is <b>normal</b>.")
    page.keyboard.press("Enter")
    assert first.get_attribute("data-state") == "edited"
    assert first.locator(".words").inner_text() == "The heart is <b>normal</b>."
    page.keyboard.press("x")
    assert first.get_attribute("data-state") == "discarded"
    page.keyboard.press("x")
    assert first.get_attribute("data-state") == "open"
    page.keyboard.press("a")
    assert first.get_attribute("data-state") == "accepted"
    for _ in range(60):  # the keyboard reaches what saves the draft
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.format") == "text":
            break
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    text = Path(download.value.path()).read_text()
    assert "Not a medical device" in text
    assert page.locator("#taken").inner_text().startswith("Saved as")


def test_a_view_is_windowed_zoomed_and_inverted(page: Any) -> None:
    send(page, png(1, (300, 240)))
    canvas = page.locator("canvas").first
    middle = "() => Array.from(document.querySelector('canvas').getContext('2d').getImageData(120, 150, 1, 1).data)"
    page.locator("#heat-on").uncheck()
    assert canvas.get_attribute("data-heat") == "false"
    plain = page.evaluate(middle)
    assert plain[0] == plain[1] == plain[2]
    canvas.focus()
    page.keyboard.press("i")
    assert page.evaluate(middle)[0] == pytest.approx(255 - plain[0], abs=1)
    page.keyboard.press("+")
    page.keyboard.press("s")
    page.keyboard.press("e")
    assert [canvas.get_attribute(f"data-{name}") for name in ("zoom", "window", "level")] == ["1.25", "240", "136"]
    page.keyboard.press("0")
    assert page.evaluate(middle) == plain
    page.locator("#heat-on").check()
    assert page.evaluate(middle) != plain or page.evaluate(
        "() => { const d = document.querySelector('canvas').getContext('2d').getImageData(0, 0, 240, 300).data;"
        "for (let i = 0; i < d.length; i += 4) if (d[i] !== d[i + 1]) return true; return false; }"
    )


def test_a_refusal_is_a_sentence_and_the_next_study_comes(page: Any) -> None:
    page.wait_for_selector("#model option", state="attached")
    page.set_input_files("#files", [{"name": "a.png", "mimeType": "image/png", "buffer": b"nonsense"}])
    page.wait_for_selector("#problem:visible")
    assert "not a PNG, JPEG or DICOM file" in page.locator("#problem").inner_text()
    send(page, png(1))
    page.locator("#again").click()
    assert page.locator("#drop").is_visible()
    assert page.locator(".sentence").count() == 0


@pytest.mark.parametrize("page", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
def test_it_fits_a_phone(page: Any) -> None:
    send(page, png(1, (300, 240)), png(2, (300, 200)))
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_text_stands_out_from_its_ground(page: Any) -> None:
    send(page, png(1))
    page.locator(".sentence").first.press("x")
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    for selector in ("p", "small", "h1", "h2", "button", "label", "summary", ".mark", ".said", "li"):
        contrasts = page.evaluate(CONTRAST, selector)
        assert contrasts, selector
        assert min(contrasts) >= 4.5, selector


def test_a_hostile_answer_runs_nothing(page: Any) -> None:
    hostile = "<img src=x onerror='window.harmed = 1'>"
    answer = {
        "id": "0" * 32, "sentences": [{"text": hostile, "confidence": 1, "calibrated": False, "doubtful": False}],
        "observations": [{"name": hostile, "status": "positive", "words": [{"text": hostile, "sentence": 0}]}],
        "views": [], "attention": None, "similar": [{"study": "1", "distance": 1, "report": hostile}],
        "input": {"checked": True, "flags": [{"name": "x", "reason": hostile, "view": 0}], "remarks": [hostile]},
    }  # fmt: skip
    body = f"event: report\ndata: {json.dumps(answer)}\n\n"
    page.route("**/v1/reports*", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    send(page, png(1))
    assert page.locator(".flag", has_text="onerror").count() == 1
    assert page.evaluate("window.harmed") is None


def drawn(name: str, **view: Any) -> str:
    """The events of an answer about a study of this name."""
    sentence = {"text": f"Report of {name}.", "confidence": 1, "calibrated": False, "doubtful": False}
    answer = {
        "id": name * 32, "sentences": [sentence], "observations": [], "similar": [], "attention": None,
        "views": [{"number": 0, "position": "pa", "file": 0, **view}] if view else [],
        "input": {"checked": True, "flags": [], "remarks": []},
    }  # fmt: skip
    return f"event: report\ndata: {json.dumps(answer)}\n\n"


def test_a_study_that_was_left_never_comes_back(page: Any, address: str) -> None:
    """The first study's answer is held back, then its picture is: the draft of the second one stays."""
    held: list[Any] = []
    bodies = [drawn("a"), drawn("b", image=f"{address}/page/held.png"), drawn("c")]

    def answer(route: Any) -> None:
        body = bodies.pop(0)
        if len(bodies) == 2:
            held.append(route)
        else:
            route.fulfill(body=body, content_type="text/event-stream")

    page.route("**/v1/reports*", answer)
    page.route("**/held.png", lambda route: held.append(route))
    page.wait_for_selector("#model option", state="attached")
    file = [{"name": "1.png", "mimeType": "image/png", "buffer": png(1)}]
    with page.expect_request("**/v1/reports*"):
        page.set_input_files("#files", file)
    with page.expect_event("requestfailed"):
        page.locator("#again").click()
    with page.expect_request("**/held.png"):
        page.set_input_files("#files", file)
    page.locator("#again").click()
    send(page, png(1))
    assert page.locator("#progress").inner_text().startswith("0")
    page.locator("#accept-all").click()
    with page.expect_response("**/held.png"):
        held[-1].fulfill(body=png(1), content_type="image/png")
    page.evaluate("fetch('healthz').then(() => new Promise((resolve) => { setTimeout(resolve, 200); }))")
    assert page.locator(".sentence .words").inner_text() == "Report of c."
    assert page.locator(".sentence").get_attribute("data-state") == "accepted"
    assert page.locator("#progress").inner_text().startswith("1")
    page.locator(".sentence").press("e")  # an editor that is left open
    page.locator("#again").click()
    assert page.locator("#drop").is_visible()


def test_a_key_opens_the_page(browser: Any, model: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path / "keys.json", "reader", ("report",), 1)
    settings = Settings(models={"tiny": model}, store=f"sqlite:///{tmp_path / 'j.db'}", keys=tmp_path / "keys.json")
    with running(settings) as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#door:visible")
        page.fill("#key", "crk_wrong_key")
        page.keyboard.press("Enter")
        page.wait_for_selector("#problem:visible")
        page.fill("#key", key)
        page.keyboard.press("Enter")
        send(page, png(1))
        assert key not in page.content()
        page.close()
