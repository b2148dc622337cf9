"""Published tables: their arithmetic against itself and against one another, and how they stand beside our results."""

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from rich.console import Console

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.evaluation.metrics.degeneracy import variety
from crossray.evaluation.metrics.meteor import METRIC
from crossray.evaluation.predictions import Provenance
from crossray.evaluation.predictions.protocol import Protocol
from crossray.evaluation.published import METRICS, PublishedRow, for_data, load_tables, table
from crossray.evaluation.results import Evaluation, ProtocolEvaluation, Result
from crossray.evaluation.statistics.significance import Interval
from crossray.pages.published_tables import (
    HEADINGS,
    differences,
    has_drawn_images,
    print_published,
    published_grid,
    published_page,
)

NINE = (
    "bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "ce_precision", "ce_recall", "ce_f1",
)  # fmt: skip

#: Printed with three decimals, the mean of nine rounded numbers can be off by half a unit twice.
ROUNDING = 0.001

R2GEN = Protocol("r2gen", "findings", "legacy", 60, 3, "abc", "2", split="test", studies=590, labeler="rules 1")


def scores(**values: float) -> dict[str, Interval]:
    return {name: Interval(value, value, value) for name, value in values.items()}


def ours(protocol: Protocol = R2GEN, **values: float) -> Result:
    return Result("runs/mine", protocol, protocol.studies, scores(**values), variety(["a .", "b ."]))


def rows() -> list[tuple[str, str]]:
    return [(name, row.name) for name, found in load_tables().items() for row in found.rows]


def test_the_tables_of_the_four_sources_are_there() -> None:
    assert set(load_tables()) == {
        "coacl/iu-xray", "coacl/mimic-cxr", "rcan/iu-xray", "rcan/mimic-cxr", "rcan/table4-iu-xray",
        "rcan/table4-mimic-cxr", "rcan/table5", "rcan/fig5", "revtaf/mimic-cxr", "revtaf/iu-xray", "revtaf/table3",
        "revtaf/table4", "uar/iu-xray", "uar/mimic-cxr", "uar/table2", "uar/tables3-4", "community",
    }  # fmt: skip
    assert {row.name for row in table("rcan/table4-iu-xray").rows} == {
        row.name for row in table("rcan/table4-mimic-cxr").rows
    }
    with pytest.raises(UserError, match="'rcan' does not exist; choose one of coacl/iu-xray, "):
        table("rcan")
    with pytest.raises(UserError, match="row 'RVE' does not exist; choose one of NIC, "):
        table("rcan/iu-xray").row("RVE")


def test_every_line_is_sound() -> None:
    for identifier, found in load_tables().items():
        names = [row.name for row in found.rows]
        assert len(set(names)) == len(names), identifier
        assert found.kind == "reproduction" or sum(row.own for row in found.rows) == 1, identifier
        for row in found.rows:
            assert set(row.flags) <= set(row.values) <= set(METRICS), (identifier, row.name)
            assert row.values or found.kind == "figure"
            assert row.data in ("iu-xray", "mimic-cxr")
            assert all(0 <= value < 1 for name, value in row.values.items() if name != "seconds")


@pytest.mark.parametrize(("identifier", "name"), rows())
def test_bleu_falls_with_its_order_unless_flagged(identifier: str, name: str) -> None:
    row = table(identifier).row(name)
    printed = [(f"bleu{order}", row.values[f"bleu{order}"]) for order in range(1, 5) if f"bleu{order}" in row.values]
    rising = {metric for (_, before), (metric, after) in pairwise(printed) if after >= before}
    assert rising <= set(row.flags)


def test_revtafs_average_is_that_of_its_nine_columns_unless_flagged() -> None:
    """REVTAF's own arithmetic is the oracle of what was typed; one row of it does not hold, and is flagged."""
    wrong, checked = [], 0
    for found in load_tables().values():
        for row in found.rows:
            if "avg" in row.values and all(name in row.values for name in NINE):
                checked += 1
                if abs(np.mean([row.values[name] for name in NINE]) - row.values["avg"]) > ROUNDING:
                    wrong.append((found.identifier, row.name, "avg" in row.flags))
    assert checked == 27
    assert wrong == [("revtaf/table4", "GPT-4", True)]


def test_a_systems_own_numbers_agree_across_its_tables() -> None:
    """A result that a source prints twice is the same twice, except for means and samples."""
    for first, second in (
        ("rcan/iu-xray", "rcan/table4-iu-xray"),
        ("rcan/iu-xray", "rcan/table5"),
        ("rcan/mimic-cxr", "rcan/table4-mimic-cxr"),
        ("revtaf/mimic-cxr", "revtaf/table3"),
        ("uar/iu-xray", "uar/table2"),
        ("uar/iu-xray", "uar/tables3-4"),
    ):
        one, two = (next(row for row in table(name).rows if row.own) for name in (first, second))
        assert one.values == two.values, (first, second)


def test_what_sources_quote_of_each_other_agrees_or_is_noted() -> None:
    """Two tables of one data set that quote the same system differ only where a note or a flag says so."""
    for data in ("iu-xray", "mimic-cxr"):
        quoted: dict[str, list[PublishedRow]] = {}
        for found in for_data(data, kinds=("comparison",)):
            if found.protocol.trained_on == data:
                for row in found.rows:
                    quoted.setdefault(row.name.casefold(), []).append(row)
        for name, lines in quoted.items():
            for metric in METRICS:
                values = {row.values[metric] for row in lines if metric in row.values}
                explained = any(row.note or metric in row.flags for row in lines)
                assert len(values) <= 1 or explained, (data, name, metric, values)


def test_tables_of_a_data_set_hold_its_lines_only() -> None:
    iu = {found.identifier: found for found in for_data("iu-xray")}
    assert set(iu) == {"coacl/iu-xray", "rcan/iu-xray", "revtaf/iu-xray", "uar/iu-xray", "community"}
    assert {row.data for found in iu.values() for row in found.rows} == {"iu-xray"}
    assert len(iu["community"].rows) == 5
    mimic = {found.identifier: found for found in for_data("mimic-cxr")}
    assert len(mimic["community"].rows) == 2
    assert "revtaf/table4" in mimic
    assert [found.identifier for found in for_data("mimic-cxr", kinds=("ablation",))] == [
        "rcan/table4-mimic-cxr",
        "revtaf/table3",
    ]
    with pytest.raises(UserError, match="'padchest' does not exist"):
        for_data("padchest")


def test_what_keeps_numbers_apart_is_said() -> None:
    result = ours(bleu4=0.1, ce_f1=0.2, **{METRIC: 0.3})
    rcan = differences(result, table("rcan/iu-xray"), drawn=True)
    assert rcan[0].startswith("Images: ours are drawn")
    assert any(line.startswith("Studies: ours 590 of split test, theirs 790 ") for line in rcan)
    assert any("ours are decoded from the model's tokens and truncated to 59; theirs are" in x for x in rcan)
    assert not any(line.startswith(("Cleaner", "Views", "Section", "Labeler")) for line in rcan)

    revtaf = differences(result, table("revtaf/iu-xray"), drawn=False)
    assert not any(line.startswith("Images") for line in revtaf)
    assert any("trained on MIMIC-CXR and applied to IU X-Ray" in line for line in revtaf)
    assert any("theirs are truncated to 100 words" in line for line in revtaf)
    assert any(line.startswith("Labeler") and "rules 1" in line and "CheXbert" in line for line in revtaf)
    assert "Views of a study: ours 2, theirs 1." in revtaf

    chexbert = ours(replace(R2GEN, labeler="CheXbert 1"), ce_f1=0.2)
    assert not any(line.startswith("Labeler") for line in differences(chexbert, table("revtaf/iu-xray"), drawn=False))
    unknown = differences(result, table("uar/iu-xray"), drawn=None)
    assert any("whether ours are radiographs is unknown" in line for line in unknown)
    assert any(line.startswith("Not said by the source: the section, the cleaner, ") for line in unknown)


def test_tables_fit_a_terminal_of_100_characters_and_end_with_ours() -> None:
    full = R2GEN.named("full")
    both = [ours(bleu1=0.123, cider=0.987, **{METRIC: 0.777}), ours(full, bleu1=0.111, cider=0.9)]
    for found in load_tables().values():
        output = io.StringIO()
        Console(file=output, width=100).print(published_grid(found, both).render())
        text = output.getvalue()
        assert all(len(line) <= 100 for line in text.splitlines()), found.identifier
        assert "…" not in text, found.identifier
        for row in found.rows:
            assert all(f"{value:.3f}" in text for name, value in row.values.items() if name != "seconds")
        if "bleu1" in found.metrics():
            assert "0.123" in text
            assert text.index("ours, r2gen") < text.index("ours, full"), found.identifier
        assert ("0.777" in text) == ("meteor" in found.metrics())


def test_doubtful_values_are_marked_and_explained() -> None:
    text = published_grid(table("uar/iu-xray"), [ours(bleu4=0.1)]).markdown()
    assert "| 0.417? |" in text
    assert text.count("?") == 2
    assert "| ours, r2gen | - | - | - | 0.100 | - | - | - |" in text
    assert "UAR (own)" in text
    assert set(HEADINGS) == set(METRICS)


def test_an_evaluation_stands_under_every_table(make_dataset: Callable[..., Dataset]) -> None:
    parts = {
        name: ProtocolEvaluation(ours(R2GEN.named(name), bleu4=value), variety(["a .", "b ."]))
        for name, value in (("r2gen", 0.777), ("full", 0.666))
    }
    evaluation = Evaluation("mine.jsonl", Provenance(), parts, resamples=0, seed=0)
    output = io.StringIO()
    print_published(evaluation, "iu-xray", Console(file=output, width=100))
    page = published_page(evaluation, "iu-xray")
    for text in (output.getvalue(), page):
        assert text.count("0.777") == text.count("0.666") == 5
        assert text.count("whether ours are radiographs is unknown") == 5
    assert "SentSAT+KG, BLEU-4: 0.417 is impossible" in page
    assert "HRGR-Agent, BLEU-1, BLEU-2, BLEU-3, BLEU-4: all four repeat NIC's" in page

    # An LLM's answers have no tokenizer, hence no r2gen references.
    only_full = replace(evaluation, protocols={"full": parts["full"]})
    page = published_page(only_full, "mimic-cxr")
    assert "r2gen |" not in page
    assert page.count("References: ours are whole;") == 6

    studies = [("train", "a .", 10, None, True), ("test", "b .", 20, None, True)]
    dataset = make_dataset(studies)
    assert has_drawn_images(dataset.path) is False
    header = dataset.path / "dataset.json"
    header.write_text(header.read_text().replace('"made up"', '"made up", "synthetic_images": true'))
    assert has_drawn_images(dataset.path) is True
    assert has_drawn_images("nowhere") is None
