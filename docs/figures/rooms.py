"""Draws the rooms of the package and what imports what, from the import graph: `python docs/figures/rooms.py`.

The rows are the layers of pyproject.toml. An arrow is an import; those that others imply are left out.
"""

import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
WIDTH, ROW, BOX, HIGH = 860, 62, 180, 36
INK, FILL, EDGE = "#1f2933", "#eef3f8", "#5b7fa6"

#: Room to what it holds, a few words each.
HOLDS = {
    "cli": "parses", "commands": "one file a command", "demo": "all steps at once", "api": "load, Report",
    "pages": "tables, HTML", "generation": "images to reports", "ablation": "the papers' tables",
    "analysis": "attention, liveness", "training": "the one training path", "evaluation": "scores, tests, alarms",
    "decoding": "beam, greedy, MBR", "models": "contract, systems", "phantom": "drawn radiographs",
    "data": "images, store, sources", "layers": "attention, memories", "retrieval": "nearest reports",
    "text": "cleaning, labels", "files": "write whole, lock", "registry": "plug-ins", "errors": "UserError",
    "confidence": "calibration, input check", "parser_messages": "bad options in a sentence",
    "serving": "HTTP and DICOM service", "interop": "DICOM SR, FHIR",
}  # fmt: skip


def layers() -> list[list[str]]:
    """The rooms, top first, as the import contract lists them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rows = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return [[name.strip().removeprefix("crossray.") for name in row.split("|")] for row in rows]


def edges(rooms: set[str]) -> set[tuple[str, str]]:
    """Imports between rooms, without those that follow from others."""
    graph = grimp.build_graph("crossray", exclude_type_checking_imports=True)
    direct: dict[str, set[str]] = {room: set() for room in rooms}
    for module in graph.modules:
        room = f"{module}.".split(".")[1]
        for other in graph.find_modules_directly_imported_by(module):
            target = f"{other}.".split(".")[1]
            if room in rooms and target in rooms and target != room:
                direct[room].add(target)

    def reached(room: str) -> set[str]:
        found: set[str] = set()
        waiting = list(direct[room])
        while waiting:
            at = waiting.pop()
            if at not in found:
                found.add(at)
                waiting += direct[at]
        return found

    below = {room: reached(room) for room in rooms}
    return {
        (room, target)
        for room in rooms
        for target in direct[room]
        if not any(target in below[between] for between in direct[room] - {target})
    }


def main() -> None:
    """Write rooms.svg beside this file."""
    rows = layers()
    place = {}
    for level, row in enumerate(rows):
        for column, room in enumerate(row):
            x = (column + 1) * WIDTH / (len(row) + 1)
            place[room] = (x, 8 + level * ROW)
    parts = []
    for room, target in sorted(edges(set(place))):
        (x, y), (u, v) = place[room], place[target]
        y, v = y + HIGH, v - 3
        steps = round((v - y + HIGH) / ROW)
        side = 0 if steps <= 1 else (60 + 26 * steps) * (1 if (sum(map(ord, room + target)) % 2) else -1)
        start, end = x + (BOX / 2 - 12) * (side > 0) - (BOX / 2 - 12) * (side < 0), u
        end += (BOX / 2 - 12) * (side > 0) - (BOX / 2 - 12) * (side < 0)
        path = f"M{start:.0f} {y} C{start + side:.0f} {y + 22} {end + side:.0f} {v - 22} {end:.0f} {v}"
        style = f'fill="none" stroke="{EDGE}" stroke-width="1.2" opacity=".75" marker-end="url(#a)"'
        parts.append(f'<path d="{path}" {style}/>')
    for room, (x, y) in place.items():
        parts.append(
            f'<rect x="{x - BOX / 2:.0f}" y="{y}" width="{BOX}" height="{HIGH}" rx="6" fill="{FILL}" stroke="{INK}"/>'
            f'<text x="{x:.0f}" y="{y + 16}" text-anchor="middle" font-weight="600">{room}</text>'
            f'<text x="{x:.0f}" y="{y + 29}" text-anchor="middle" font-size="11" fill="#52606d">'
            f"{HOLDS.get(room, '')}</text>"
        )
    height = 8 + len(rows) * ROW
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="14" fill="{INK}" role="img" aria-label="Packages of crossray in layers, with their imports">'
        f'<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{EDGE}"/></marker></defs>{"".join(parts)}</svg>\n'
    )
    Path(__file__).with_name("rooms.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
