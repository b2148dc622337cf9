"""The scorecard: systems on the same studies in tables, curves and bars, and by study.

The last is what RCAN's Fig. 6 and REVTAF's Fig. 3 show of two studies.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossray.data.store import Dataset
from crossray.errors import UserError, counted
from crossray.pages import page
from crossray.pages.scorecard import curves, observations, provenance, scores
from crossray.pages.scorecard import studies as comparisons
from crossray.pages.scorecard.runs import System, common_protocols
from crossray.pages.study_images import StudyImages

#: Maximum number of systems in the title of a page.
MOST_NAMES = 3


def build_scorecard(
    systems: Sequence[System],
    *,
    title: str = "",
    data: Dataset | Path | str | None = None,
    studies: int = 24,
    seed: int = 0,
    template: str = "scorecard.html",
    **values: Any,
) -> str:
    """The page as one HTML file that loads nothing.

    Args:
        systems: on the same studies, from `read_systems`.
        title: title of the page; if empty, it is made from the names of the systems.
        data: prepared dataset of the images; the one that the predictions name when None, if it is there.
        studies: number of studies to show.
        seed: of the choice of studies.
        template: one that extends `scorecard.html`.
        values: additional values for the template.

    Raises:
        UserError: `data` is not the dataset of the predictions, or the systems share no protocol.
    """
    protocols, left_out = common_protocols(systems)
    images, no_images = _images(systems, data)
    names = [system.name for system in systems]
    title = title or f"CrossRay scorecard: {', '.join(names) if len(names) <= MOST_NAMES else f'{len(names)} systems'}"
    return page.document(
        template,
        title,
        script="scorecard.js",
        compared=_compared(systems),
        left_out=left_out,
        notice=f"{page.SYNTHETIC} {page.RESEARCH}" if images and images.synthetic else page.RESEARCH,
        alarms=provenance.alarms(systems, protocols),
        scores=[scores.tables(systems, name) for name in protocols],
        observations=observations.observations(systems, protocols[-1]),
        training=curves.curves(systems),
        studies=_studies(systems, protocols[-1], images, no_images, studies, seed),
        provenance=provenance.provenance(systems),
        notes=provenance.notes(systems),
        **values,
    )


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
    return f"{what}: {names}. {counted(studies, 'study')}{split}{data}, section {source.section}."


def _images(systems: Sequence[System], data: Dataset | Path | str | None) -> tuple[StudyImages | None, str]:
    """The images, or a sentence on why there are none. Only a dataset that the caller named must exist."""
    try:
        return StudyImages.open(systems[0].predictions.provenance, data), ""
    except UserError as error:
        if data is not None:
            raise
        return None, f"No images: {error}"


def _studies(
    systems: Sequence[System], protocol: str, images: StudyImages | None, no_images: str, count: int, seed: int
) -> dict[str, Any]:
    compared = comparisons.compare_studies(systems, protocol)
    chosen = comparisons.choose(compared, count, seed)
    if not chosen:
        return {}
    return {
        "all": len(compared),
        "seed": seed,
        "no_images": no_images,
        "key": comparisons.key(),
        "filters": comparisons.filters(systems, [study for _, study in chosen]),
        "shown": [
            comparisons.shown_study(group, study, images.views(study.id) if images else []) for group, study in chosen
        ],
    }
