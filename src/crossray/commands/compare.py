"""`crossray compare`: tests whether systems differ significantly."""

from pathlib import Path
from typing import Literal

from crossray.pages.terminal import console


def compare(
    predictions: list[Path],
    common: bool = False,
    against: Literal["first", "all"] | None = None,
    metrics: list[str] | None = None,
    labeler: str = "rules",
    convention: str = "crossray",
    meteor: Literal["auto", "yes", "no"] = "auto",
    resamples: int = 10_000,
    seed: int = 0,
    out: Path | None = None,
    markdown: Path | None = None,
) -> None:
    """Compare the predictions of several systems on the same studies, with significance tests.

    Args:
        predictions: two or more JSON lines files, one per system.
        common: compare on the studies that all files contain, instead of requiring the same studies in each.
        against: test every pair (all) or every system against the first; default: all up to four systems.
        metrics: metrics to test, such as cider ce_f1; fewer tests need less correction.
        labeler: labeler for the clinical scores: rules, or a folder that `crossray convert` wrote.
        convention: how the rules define the observations: crossray, or chexpert, as the CheXpert labeler does.
        meteor: METEOR 1.5 needs Java and pycocoevalcap; auto computes it if both are installed.
        resamples: number of bootstrap resamples, and of exchanges in the randomization test.
        seed: random seed of both.
        out: also write everything to this JSON file.
        markdown: also write the tables to this Markdown file.
    """
    from crossray.evaluation.compare import compare as test
    from crossray.evaluation.labelers import open_labeler
    from crossray.files.write import write_whole
    from crossray.pages import compare_tables

    with console().status("comparing"):
        comparison = test(
            predictions,
            common=common,
            against=against,
            metrics=metrics,
            meteor=meteor,
            labeler=open_labeler(labeler, convention),
            resamples=resamples,
            seed=seed,
        )
    compare_tables.print_comparison(comparison, console())
    if out is not None:
        comparison.save(out)
        console().print(f"comparison in {out}")
    if markdown is not None:
        write_whole(markdown, compare_tables.markdown_page(comparison))
        console().print(f"tables in {markdown}")
