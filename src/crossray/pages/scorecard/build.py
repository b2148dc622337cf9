"""The scorecard: compares systems on the same studies in tables, curves and bars, and study by study.

The comparison of single studies follows RCAN, Fig. 6, and REVTAF, Fig. 3.
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
    """Build the page as self-contained HTML.

    Args:
        systems: systems on the same studies, from `read_systems`.
        title: title of the page; by default, it consists of the names of the systems.
        data: prepared dataset with the images; by default, the one named in the predictions, if it exists.
        studies: number of studies to show.
        seed: seed of the random choice of studies.
        template: template that is or extends `scorecard.html`.
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
    """The images, or the reason why there are none. An error is raised only for a dataset given by the caller."""
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
