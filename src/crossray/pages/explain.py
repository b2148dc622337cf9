"""The explain page: point at a word of a generated report, and see where the model looked (RCAN Fig. 4, UAR Fig. 6)."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from crossray.analysis.attention import ReportAttention, attend_reports
from crossray.data.batches.batch import Inputs
from crossray.data.study import VIEW_POSITIONS
from crossray.decoding.config import DecodingConfig
from crossray.models.base import ReportModel
from crossray.pages import page
from crossray.pages.report import RESEARCH, SYNTHETIC
from crossray.text.display import SENTENCE_ENDS, shown_words

#: Longest side of an embedded image in pixels.
LONGEST = 480

_VIEW_NAMES = {
    "frontal": "frontal view", "pa": "frontal view (PA)", "ap": "frontal view (AP)", "lateral": "lateral view",
}  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """What one model wrote of a study, and the markup of the views as it was given them.

    Attributes:
        name: what the page calls the model.
        system: its system.
        attention: its report, and where it looked.
        images: an image a view, ready-made markup.
        views: names of the views, such as "lateral view".
    """

    name: str
    system: str
    attention: ReportAttention
    images: tuple[str, ...]
    views: tuple[str, ...]


def explain(model: ReportModel, decoding: DecodingConfig, inputs: Inputs, name: str) -> Explanation:
    """Let a model write the report of one study.

    Args:
        model: with tokenizer and image transform.
        decoding: the search.
        inputs: one study as stored, before the transform, on the model's device.
        name: what the page calls the model.

    Raises:
        UserError: the system does not tell where in the image it looks.
    """
    (attention,) = attend_reports(model, inputs, decoding)
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
    """The page as one HTML file that loads nothing.

    Args:
        study: its name.
        explanations: of one or several models.
        reference: the true report, if it is known.
        synthetic: whether the images are drawn.
    """
    title = f"Where {'the model' if len(explanations) == 1 else 'the models'} looked: {study}"
    layers = max(explanation.attention.weights.shape[1] for explanation in explanations)
    body = [
        "<header>",
        page.title(title),
        page.paragraph(f"{SYNTHETIC} {RESEARCH}" if synthetic else RESEARCH, "notice"),
        page.paragraph(
            "Point at a word of a report, or go there with the tab and arrow keys: the colours show the "
            "cross-attention that the decoder paid to the image while it wrote the word. A click or tap keeps it. "
            "Attention shows what was read, not why the word was chosen."
        ),
        page.paragraph("The colours need JavaScript, which is switched off here.", "without-script"),
        "</header>",
        _controls(layers),
        '<div class="compared">',
        *(_article(explanation) for explanation in explanations),
        "</div>",
        *([page.details("Reference report", [page.paragraph(reference)])] if reference else []),
    ]
    return page.document(title, body, page.asset("explain.js"), page.asset("explain.css"))


def _controls(layers: int) -> str:
    choices = "".join(f'<option value="{layer}">layer {layer + 1} of {layers}</option>' for layer in range(layers))
    return (
        '<form class="controls" hidden aria-label="What is shown">'
        "<fieldset><legend>Point at</legend>"
        '<label><input type="radio" name="unit" value="word" checked>words</label>'
        '<label><input type="radio" name="unit" value="sentence">sentences</label></fieldset>'
        f'<label><b>Decoder layers</b> <select name="layer"><option value="all">mean of all</option>{choices}</select>'
        "</label>"
        '<label><input type="checkbox" name="cells">show the cells</label>'
        '<span>none<span class="scale" aria-hidden="true"></span>most, and at least 4 times an even spread</span>'
        "</form>"
    )


def _article(explanation: Explanation) -> str:
    attention = explanation.attention
    _, layers, views, side, _ = attention.weights.shape
    data = base64.b64encode(np.round(attention.weights * 65535).astype("<u2").tobytes()).decode("ascii")
    present = np.flatnonzero(attention.view_mask).tolist()
    figures = "".join(
        _figure(image, name, view, attention.windows[view].tolist(), side)
        for image, name, view in zip(explanation.images, explanation.views, present, strict=True)
    )
    return (
        f'<article class="explained" data-weights="{data}" data-layers="{layers}" data-views="{views}" '
        f'data-side="{side}"><h2>{escape(explanation.name)} <small>{escape(explanation.system)}</small></h2>'
        f'<div class="views">{figures}</div>'
        f'<div><p class="report">{_words(attention.text)}</p><p class="readout" role="status"></p></div></article>'
    )


def _figure(image: str, name: str, view: int, window: Sequence[float], side: int) -> str:
    """An image with a canvas over the part of it that the model saw."""
    top, left, bottom, right = window
    place = f"left:{left:.3%};top:{top:.3%};width:{right - left:.3%};height:{bottom - top:.3%}"
    kind = "" if (top, left, bottom, right) == (0, 0, 1, 1) else ' class="part"'
    canvas = (
        f'<canvas{kind} width="{side}" height="{side}" style="{place}" data-view="{view}" '
        f'data-name="{escape(name)}" aria-hidden="true"></canvas>'
    )
    return f'<figure><div class="frame">{image}{canvas}</div><figcaption>{escape(name)}</figcaption></figure>'


def _words(text: str) -> str:
    """A report whose words are buttons, numbered as in `ReportAttention.words`."""
    pieces = []
    sentence = 0
    for number, word in enumerate(shown_words(text)):
        pieces.append(
            f'{word.space}<button type="button" class="word" data-word="{number}" data-sentence="{sentence}" '
            f'aria-pressed="false">{escape(word.shown)}</button>'
        )
        sentence += word.shown in SENTENCE_ENDS
    return "".join(pieces)
