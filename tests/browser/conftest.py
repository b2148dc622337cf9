"""A headless Chromium; tests are left out, saying so, where there is none."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.browser.example import make_runs

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def launch(playwright: Any) -> Any:
    """Debian's Chromium, or the one that CROSSRAY_CHROMIUM names."""
    chromium = os.environ.get("CROSSRAY_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("no Chromium: apt-get install chromium, or set CROSSRAY_CHROMIUM to its path")
    return playwright.chromium.launch(executable_path=chromium, args=FLAGS)


@contextmanager
def opened(browser: Any, path: Path, options: Mapping[str, Any], ignored: str | None = None) -> Iterator[Any]:
    """A page in a window of its own; `page.troubles` is what it loads, logs and throws: itself and nothing more.

    Args:
        browser: that of the session.
        path: HTML file.
        options: of the window; 1280 x 900 unless given.
        ignored: messages of the console with this text do not count.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    page.troubles = []
    page.on("request", lambda asked: None if asked.url.startswith("data:") else page.troubles.append(asked.url))
    page.on("console", lambda said: None if ignored and ignored in said.text else page.troubles.append(said.text))
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.goto(path.as_uri())
    yield page
    context.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two made-up systems on phantom studies."""
    return make_runs(tmp_path_factory.mktemp("runs"), studies=90, size=96)
