"""Follows every link inside the built site: `python docs/check_links.py docs/_build/html`. No network is used."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """Collects the links and anchors of a page, and the links that a browser loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.add(value)
                if tag != "a":
                    self.loaded.add(value)
            if value and name in ("id", "name"):
                self.anchors.add(value)


def broken(site: Path) -> list[str]:
    """Return a line for every link to a missing file or anchor, and for everything loaded from another site."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    faults = []
    for path, page in pages.items():
        if "_modules" in path.parts:  # copies of the source, whose links back Sphinx does not always resolve
            continue
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    faults.append(f"{path.relative_to(site)}: {link}: loaded from elsewhere")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            target = target / "index.html" if target.is_dir() else target
            where = f"{path.relative_to(site)}: {link}"
            if not target.is_file():
                faults.append(f"{where}: no such file")
                continue
            known = pages.get(site / target.relative_to(site.resolve()))
            if known and parts.fragment and unquote(parts.fragment) not in known.anchors:
                faults.append(f"{where}: no such place")
    return faults


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print("usage: python docs/check_links.py docs/_build/html (the built site)", file=sys.stderr)
        sys.exit(2)
    found = broken(Path(sys.argv[1]))
    print("\n".join(found) or "links: all there")
    sys.exit(bool(found))
