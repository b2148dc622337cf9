"""The licences of everything that CrossRay can install: `python .ci/licences.py` writes docs/project/licences.md.

It reads the metadata of the installed packages, following their requirements from each extra of pyproject.toml.
"""

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PAGE = Path(__file__).parents[1] / "docs" / "project" / "licences.md"

#: Extras that users install; those for developers are left out.
DEVELOPERS = {"test", "dev", "docs", "all"}

HEAD = """# Licences of dependencies

CrossRay is under Apache-2.0. `python .ci/licences.py` writes this table from the metadata of the installed packages;
`make wheel-test` writes a software bill of materials in CycloneDX's format, `dist/sbom.cdx.json`.

**One dependency is under the GPL**: `pylibjpeg-libjpeg` (GPL-3.0) of the extra `dicom`, which decodes JPEG inside
DICOM files. Without the extra CrossRay reads PNG and JPEG. If you distribute a program together with it, the
GPL applies to the whole. `pip uninstall pylibjpeg-libjpeg` leaves uncompressed and JPEG 2000 DICOM files readable.

"""


def closure(name: str, extras: frozenset[str], found: dict[str, Distribution]) -> None:
    """Add a package and what it requires."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return
    if key in found and not extras:
        return
    found[key] = package
    for text in package.requires or []:
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in (extras or {""})
        )
        if wanted and re.sub(r"[-_.]+", "-", requirement.name).lower() not in found:
            closure(requirement.name, frozenset(requirement.extras), found)


def licence(package: Distribution) -> str:
    """SPDX expression, else classifiers, else the first words of the licence field."""
    meta = package.metadata
    if expression := meta.get("License-Expression"):
        return str(expression)
    classified = [
        line.rpartition(" :: ")[2] for line in meta.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    named = [text for text in classified if text != "OSI Approved"]
    if named:
        return ", ".join(named)
    text = " ".join(str(meta.get("License") or "").split())[:60]
    return "not stated in its metadata" if text in ("", "UNKNOWN") else text


def main() -> None:
    """Write the page; `--check` only says whether it is up to date in its names and licences."""
    core: dict[str, Distribution] = {}
    closure("crossray", frozenset(), core)
    used = {name: {"core"} for name in core}
    packages = dict(core)
    for extra in distribution("crossray").metadata.get_all("Provides-Extra") or []:
        if extra in DEVELOPERS:
            continue
        found: dict[str, Distribution] = {}
        closure("crossray", frozenset({extra}), found)
        for name, package in found.items():
            if name not in core:
                used.setdefault(name, set()).add(f"`{extra}`")
                packages[name] = package
    del packages["crossray"]
    rows = [
        f"| {name} | {licence(package)} | {', '.join(sorted(used[name]))} |"
        for name, package in sorted(packages.items())
    ]
    text = HEAD + "| package | licence | needed by |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != text and f"{PAGE.name} is out of date: python .ci/licences.py")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
