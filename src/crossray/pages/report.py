"""The report page: systems on the same studies in tables, curves and bars, and study by study.

The last is what RCAN's Fig. 6 and REVTAF's Fig. 3 show of two studies.
"""

from collections.abc import Sequence
from pathlib import Path

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.files.write import write_whole
from crossray.pages import page, report_curves, report_observations, report_provenance, report_scores, report_studies
from crossray.pages.report_images import StudyImages
from crossray.pages.report_runs import System, common_protocols

#: The title of a page names at most so many systems.
MOST_NAMES = 3

RESEARCH = "Research software: not for clinical use."
SYNTHETIC = "All images here are synthetic: drawn by CrossRay's phantom, not taken of any person."


def build_report(
    systems: Sequence[System],
    *,
    title: str = "",
    data: Dataset | Path | str | None = None,
    studies: int = 24,
    seed: int = 0,
    preface: Sequence[str] = (),
) -> str:
    """The page as one HTML file that loads nothing.

    Args:
        systems: on the same studies, from `read_systems`.
        title: of the page; made of the systems' names when empty.
        data: prepared dataset of the images; the one that the predictions name when None, if it is there.
        studies: how many studies are shown.
        seed: of the choice of studies.
        preface: pieces of `crossray.pages.page` that follow the alarms.

    Raises:
        UserError: `data` is not the dataset of the predictions, or the systems share no protocol.
    """
    protocols, left_out = common_protocols(systems)
    images, no_images = _images(systems, data)
    names = [system.name for system in systems]
    title = title or f"CrossRay report: {', '.join(names) if len(names) <= MOST_NAMES else f'{len(names)} systems'}"
    observations = report_observations.observations(systems, protocols[-1])
    sections = {
        "scores": ("Scores", [piece for name in protocols for piece in report_scores.tables(systems, name)]),
        "observations": ("Observation by observation", observations),
        "training": ("Training", report_curves.curves(systems)),
        "studies": ("Study by study", _studies(systems, protocols[-1], images, no_images, studies, seed)),
        "provenance": ("Provenance", [report_provenance.provenance(systems), *report_provenance.notes(systems)]),
    }
    sections = {name: section for name, section in sections.items() if section[1]}
    body = [
        "<header>",
        page.title(title),
        page.paragraph(_compared(systems)),
        *(page.paragraph(reason, "muted") for reason in left_out),
        page.paragraph(f"{SYNTHETIC} {RESEARCH}" if images and images.synthetic else RESEARCH, "notice"),
        *report_provenance.alarms(systems, protocols),
        *preface,
        page.contents({name: heading for name, (heading, _) in sections.items()}),
        "</header><main>",
    ]
    for name, (heading, pieces) in sections.items():
        body += [f'<section aria-labelledby="{name}">', page.heading(heading, name), *pieces, "</section>"]
    return page.document(title, [*body, "</main>"], script=page.asset("report.js"))


def write_report(html: str, out: Path | str) -> None:
    """Write a page; the file appears whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_whole(out, html)


def _compared(systems: Sequence[System]) -> str:
    source = systems[0].predictions.provenance
    names = ", ".join(
        f"{system.name} ({system.predictions.provenance.system})"
        if system.predictions.provenance.system
        else system.name
        for system in systems
    )
    studies = len(systems[0].predictions.rows)
    split = f" of the {source.split} split" if source.split else ""
    data = f" of {Path(source.data).name}" if source.data else ""
    what = "Systems" if len(systems) > 1 else "System"
    return f"{what}: {names}. {studies} studies{split}{data}, section {source.section}."


def _images(systems: Sequence[System], data: Dataset | Path | str | None) -> tuple[StudyImages | None, str]:
    """The images, or a sentence that says why there are none. Only a dataset that was asked for must be there."""
    try:
        return StudyImages.open(systems[0].predictions.provenance, data), ""
    except UserError as error:
        if data is not None:
            raise
        return None, f"No images: {error}"


def _studies(
    systems: Sequence[System], protocol: str, images: StudyImages | None, no_images: str, count: int, seed: int
) -> list[str]:
    compared = report_studies.compare_studies(systems, protocol)
    chosen = report_studies.choose(compared, count, seed)
    if not chosen:
        return []
    return [
        page.paragraph(
            f"{len(chosen)} of {len(compared)} studies: a third where reports and reference agree best (observations "
            "agreed on minus those in one text only, mean CIDEr-D between equals), a third where they agree worst, and "
            f"the rest drawn at random (seed {seed}). Marks are those of CrossRay's own "
            "labeler, which errs too. The label no_finding has no mark: it follows from the others."
        ),
        *([page.paragraph(no_images, "muted")] if no_images else []),
        report_studies.key(),
        report_studies.filters(systems, [study for _, study in chosen]),
        *(report_studies.article(group, study, images.views(study.id) if images else []) for group, study in chosen),
    ]
