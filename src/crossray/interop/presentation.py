"""Shows where the model looked, as a DICOM presentation state (PS3.3 A.33.1) that viewers overlay on the images.

The images are not changed. Each cell of the model's grid with more than `MARKED` times the mean attention of its view
is outlined. Attention does not measure the confidence or correctness of a report.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError
from crossray.interop.draft import DraftReport
from crossray.interop.source import Source
from crossray.interop.sr import SERIES_NUMBER, equipment, evidence_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: A cell is outlined if its attention exceeds this multiple of the mean of its view.
MARKED = 2.0

#: Caption in each view.
CAPTION = "Where the model looked. Research use only, not a medical device."


def attention_overlay(
    draft: DraftReport,
    sources: Sequence[Source],
    shares: Sequence[NDArray[np.floating[Any]]],
    windows: Sequence[Sequence[float]],
) -> "Dataset":
    """Build a presentation state for the views of a report; its identifiers depend only on the draft.

    Args:
        draft: the report.
        sources: views of the report.
        shares: for each view, (G, G) shares of the attention on the cells of the model's grid.
        windows: for each view, top, left, bottom and right of the part that the model saw, as shares of height and
            width; the cells divide it evenly.

    Raises:
        UserError: highdicom is not installed, or a view has no size.
    """
    try:
        from highdicom.pr import GraphicAnnotation, GraphicLayer, GrayscaleSoftcopyPresentationState, TextObject
        from pydicom.valuerep import DA, TM
    except ModuleNotFoundError:
        raise UserError("presentation states need highdicom; run `pip install 'crossray[hospital]'`.") from None
    views = [evidence_of(source) for source in sources]
    layer = GraphicLayer("ATTENTION", order=1, description=CAPTION)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings quote the patient's name
        annotations = [
            GraphicAnnotation(
                [view],
                layer,
                graphic_objects=_outlines(source, share, window) or None,
                text_objects=[TextObject(CAPTION, "DISPLAY", bounding_box=(0.0, 0.95, 1.0, 1.0))],
            )
            for source, view, share, window in zip(sources, views, shares, windows, strict=True)
        ]
        overlay = GrayscaleSoftcopyPresentationState(
            referenced_images=views,
            series_instance_uid=draft.uid("overlay series"),
            series_number=SERIES_NUMBER + 1,
            sop_instance_uid=draft.uid("overlay"),
            instance_number=1,
            **equipment(draft),
            content_label="ATTENTION",
            content_description=CAPTION,
            graphic_layers=[layer],
            graphic_annotations=annotations,
            series_description="CrossRay attention, research use only",
            specific_character_set="ISO_IR 192",
        )
    written = draft.written.astimezone().replace(microsecond=0)
    overlay.PresentationCreationDate = overlay.InstanceCreationDate = DA(written.date())
    overlay.PresentationCreationTime = overlay.InstanceCreationTime = TM(written.time())
    return overlay


def _outlines(source: Source, share: NDArray[np.floating[Any]], window: Sequence[float]) -> list[Any]:
    """Return the outline of each marked cell, in pixel coordinates of the view."""
    from highdicom.pr import GraphicObject

    rows, columns = (int(source.dataset.get(keyword) or 0) for keyword in ("Rows", "Columns"))
    if not rows or not columns:
        raise UserError(f"{source.name}: Rows or Columns are missing; give the original DICOM file from the archive.")
    top, left, bottom, right = window
    side = share.shape[0]
    height, width = (bottom - top) * rows / side, (right - left) * columns / side
    outlines = []
    for row, column in np.argwhere(share > MARKED * share.mean()).tolist():
        first = np.array([left * columns + column * width, top * rows + row * height])
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height), (0, 0)]) + first
        # within the image, including its border
        points = np.clip(corners, 0.0, [float(columns), float(rows)])
        outlines.append(GraphicObject("POLYLINE", points, "PIXEL"))
    return outlines
