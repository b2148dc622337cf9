"""The licenses of everything that CrossRay can install: `python .ci/licences.py` writes docs/project/licences.md.

It reads the metadata of the installed packages, following the requirements of pyproject.toml, of each extra apart.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "project" / "licences.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: Extras that users install; those for developers are left out.
DEVELOPERS = {"test", "dev", "docs", "all"}

HEAD = """# Licenses of dependencies

CrossRay is licensed under Apache-2.0. `python .ci/licences.py` generates this table from the metadata of the
installed packages; `make wheel-test` writes a software bill of materials in CycloneDX format, `dist/sbom.cdx.json`.

**One dependency is under the GPL**: `pylibjpeg-libjpeg` (GPL-3.0) in the extra `dicom`, which decodes JPEG inside
DICOM files. Without the extra, CrossRay reads PNG and JPEG. If you distribute a program together with it, the
GPL applies to the whole. After `pip uninstall pylibjpeg-libjpeg`, uncompressed and JPEG 2000 DICOM files can still be
read. `pebble` (extra `serve`) and `psycopg` (extra `postgres`) are under the LGPL. Packages that are not installed when
the table is generated are missing from it.

"""


def canonical(name: str) -> str:
    """A package's name as the index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: Iterable[str], found: dict[str, Distribution], extras: frozenset[str] = frozenset()) -> None:
    """Add what some requirements bring, as far as it is installed; `extras` are those of the package that has them."""
    for text in requirements:
        requirement = Requirement(text)
        marker, name = requirement.marker, canonical(requirement.name)
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            continue
        if name == "crossray":
            for extra in requirement.extras:
                closure(PROJECT["optional-dependencies"][extra], found)
            continue
        if name in found and not requirement.extras:
            continue
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        found[name] = package
        closure(package.requires or [], found, frozenset(requirement.extras))


def licence(package: Distribution) -> str:
    """SPDX expression, else classifiers, else the first words of the license field."""
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
    """Write the page; `--check` only says whether it is up to date in its names and licenses."""
    core: dict[str, Distribution] = {}
    closure(PROJECT["dependencies"], core)
    used = {name: {"core"} for name in core}
    packages = dict(core)
    for extra, requirements in PROJECT["optional-dependencies"].items():
        if extra in DEVELOPERS:
            continue
        found: dict[str, Distribution] = {}
        closure(requirements, found)
        for name, package in found.items():
            if name not in core:
                used.setdefault(name, set()).add(f"`{extra}`")
                packages[name] = package
    rows = [
        f"| {name} | {licence(package)} | {', '.join(sorted(used[name]))} |"
        for name, package in sorted(packages.items())
    ]
    text = HEAD + "| package | license | needed by |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != text and f"{PAGE.name} is out of date: python .ci/licences.py")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
