"""Reads a page back: its tags, and what a reader of it sees."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Collects tags with attributes, and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(str(html))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all tags of this name."""
        return [attributes for name, attributes in self.tags if name == tag]
