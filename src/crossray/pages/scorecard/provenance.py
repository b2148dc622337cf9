"""The notes of a scorecard: alarms, protocols, provenance, and scores that were not computed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crossray.errors import counted
from crossray.evaluation.alarms import IGNORES_IMAGE
from crossray.evaluation.predictions.protocol import Protocol
from crossray.pages import page
from crossray.pages.scorecard.runs import System

if TYPE_CHECKING:
    from markupsafe import Markup

#: Descriptions of the protocols.
PROTOCOL_WORDS = {
    "r2gen": "The protocol of the published tables: references as represented by the model's tokenizer, truncated, "
    "with rare words unknown. It inflates scores.",
    "full": "The whole cleaned report as reference: not truncated, no unknown words.",
}


def alarms(systems: Sequence[System], protocols: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The alarms of each system: a subject, and one sentence per rule.

    A rule that is broken under several protocols is listed once.
    """
    found = []
    for system in systems:
        broken: dict[str, list[str]] = {}
        sentences: dict[str, str] = {}
        for name in reversed(protocols):
            for alarm in system.evaluation.protocols[name].alarms:
                broken.setdefault(alarm.name, []).append(name)
                sentences.setdefault(alarm.name, alarm.sentence)
        if broken:
            subject = f"{system.name} {IGNORES_IMAGE if IGNORES_IMAGE in sentences else 'raises alarms'}"
            found.append(
                (
                    subject,
                    [f"{sentence} (protocol {' and '.join(broken[rule])})." for rule, sentence in sentences.items()],
                )
            )
    return found


def protocol_words(protocol: Protocol) -> str:
    """Describe a protocol in one or two sentences."""
    cut = "" if protocol.max_length is None else f", references truncated to {protocol.max_length - 1} tokens"
    rare = f", words seen fewer than {protocol.min_count} times unknown" if (protocol.min_count or 0) > 1 else ""
    split = f" of the {protocol.split} split" if protocol.split else ""
    views = f", views: {protocol.views}" if protocol.views else ""
    labeler = f", observations read by {protocol.labeler}" if protocol.labeler else ""
    return (
        f"{PROTOCOL_WORDS[protocol.name]} {counted(protocol.studies, 'study')}{split}, section {protocol.section}, "
        f"cleaner {protocol.cleaner}{cut}{rare}{views}{labeler}."
    )


def provenance(systems: Sequence[System]) -> "Markup":
    """Provenance of the predictions and scores, with one column per system."""
    facts: dict[str, list[str]] = {}
    for system in systems:
        source, scores = system.predictions.provenance, system.evaluation
        known = {
            "predictions": str(system.predictions.path or ""),
            "model": source.model,
            "system": source.system,
            "dataset": source.data or "",
            "dataset sha256": source.data_sha256[:16],
            "split": source.split,
            "tokenizer sha256": (source.tokenizer or "")[:16],
            "decoding": _pairs(source.decoding),
            "versions": _pairs(source.versions),
            "bootstrap": f"{scores.resamples} resamples, seed {scores.seed}",
            "METEOR jar sha256": (scores.meteor_jar_sha256 or "")[:16],
        }
        for name, value in known.items():
            facts.setdefault(name, []).append(value)
    rows = [[name, *values] for name, values in facts.items() if any(values)]
    return page.table(
        ["", *(system.name for system in systems)], rows, caption="Where the numbers come from", text=True
    )


def notes(systems: Sequence[System]) -> list[str]:
    """Notes on scores that were not computed."""
    return [f"{system.name}: {note}." for system in systems for note in system.evaluation.notes]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
