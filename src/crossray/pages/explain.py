"""The explain page: point at a word of a generated report to see where the model looked (RCAN Fig. 4, UAR Fig. 6)."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossray.analysis.attention import ReportAttention, attend_reports
from crossray.data.batches.batch import Guide, Inputs
from crossray.data.study import VIEW_POSITIONS
from crossray.decoding.config import DecodingConfig
from crossray.models.base import ReportModel
from crossray.pages import page
from crossray.text.display import SENTENCE_ENDS, shown_words

if TYPE_CHECKING:
    from markupsafe import Markup

#: Longest side of an embedded image in pixels.
LONGEST = 480

_VIEW_NAMES = {
    "frontal": "frontal view", "pa": "frontal view (PA)", "ap": "frontal view (AP)", "lateral": "lateral view",
}  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """The report of one model, and the views that it used.

    Attributes:
        name: name of the model on the page.
        system: its system.
        attention: its report and attention.
        images: markup of one image per view.
        views: names of the views, such as "lateral view".
    """

    name: str
    system: str
    attention: ReportAttention
    images: "tuple[Markup, ...]"
    views: tuple[str, ...]


def explain(
    model: ReportModel, decoding: DecodingConfig, inputs: Inputs, study: str, name: str, guide: Guide | None = None
) -> Explanation:
    """Generate the report of one study with a model.

    Args:
        model: model with tokenizer and image transform.
        decoding: the decoding settings.
        inputs: one study as stored, before the transform, on the model's device.
        study: name of the study, which seeds its random numbers.
        name: name of the model on the page.
        guide: identifies a training study, see `attend_reports`.

    Raises:
        UserError: the system has no attention over the image.
    """
    (attention,) = attend_reports(model, inputs, decoding, [study], guide)
    images, views = [], []
    for view in np.flatnonzero(attention.view_mask).tolist():
        height, width = inputs.image_size[0, view].tolist()
        code = int(inputs.view_position[0, view])
        views.append(_VIEW_NAMES.get(VIEW_POSITIONS[code], f"view {view + 1}"))
        pixels = inputs.images[0, view, 0, :height, :width].cpu().numpy()
        images.append(page.image(pixels, f"{views[-1]} of the study", LONGEST))
    return Explanation(name, model.system, attention, tuple(images), tuple(views))


def build_explanation(
    study: str, explanations: Sequence[Explanation], *, reference: str = "", synthetic: bool = False
) -> str:
    """Build the page as self-contained HTML.

    Args:
        study: name of the study.
        explanations: explanations of one or more models.
        reference: the true report; "" if it is unknown.
        synthetic: whether the images are drawn.
    """
    title = f"Where {'the model' if len(explanations) == 1 else 'the models'} looked: {study}"
    return page.document(
        "explain.html",
        title,
        script="explain.js",
        style="explain.css",
        notice=f"{page.SYNTHETIC} {page.RESEARCH}" if synthetic else page.RESEARCH,
        layers=max(explanation.attention.weights.shape[1] for explanation in explanations),
        explained=[_explained(explanation) for explanation in explanations],
        reference=reference,
    )


def _explained(explanation: Explanation) -> dict[str, Any]:
    """The template's values for a model's report."""
    attention = explanation.attention
    _, layers, views, side, _ = attention.weights.shape
    data = base64.b64encode(np.round(attention.weights * 65535).astype("<u2").tobytes()).decode("ascii")
    present = np.flatnonzero(attention.view_mask).tolist()
    figures = [
        _figure(image, name, view, attention.windows[view].tolist())
        for image, name, view in zip(explanation.images, explanation.views, present, strict=True)
    ]
    return {
        "name": explanation.name, "system": explanation.system, "weights": data, "layers": layers, "views": views,
        "side": side, "figures": figures, "words": _words(attention.text),
    }  # fmt: skip


def _figure(image: "Markup", name: str, view: int, window: Sequence[float]) -> dict[str, Any]:
    """The template's values for an image with a canvas over the part that the model saw."""
    top, left, bottom, right = window
    place = f"left:{left:.3%};top:{top:.3%};width:{right - left:.3%};height:{bottom - top:.3%}"
    return {"image": image, "name": name, "view": view, "place": place, "part": tuple(window) != (0, 0, 1, 1)}


def _words(text: str) -> list[dict[str, Any]]:
    """The words of a report, which become buttons, in the order of `ReportAttention.words`."""
    words = []
    sentence = 0
    for word in shown_words(text):
        words.append({"space": word.space, "text": word.shown, "sentence": sentence})
        sentence += word.shown in SENTENCE_ENDS
    return words
