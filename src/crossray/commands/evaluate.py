"""`crossray evaluate`: the scores of a predictions file."""

from pathlib import Path
from typing import Literal

from crossray.pages.terminal import console


def evaluate_predictions(
    predictions: Path,
    data: Path | None = None,
    out: Path | None = None,
    markdown: Path | None = None,
    meteor: Literal["auto", "yes", "no"] = "auto",
    labeler: str = "rules",
    convention: str = "crossray",
    published: Literal["iu-xray", "mimic-cxr"] | None = None,
    references: Path | None = None,
    section: Literal["findings", "impression", "report"] | None = None,
    cleaner: Literal["legacy", "legacy_mimic", "fixed", "none"] | None = None,
    studies: Path | None = None,
    sample: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> None:
    """Evaluate predictions under both protocols, with trivial baselines, the shuffled-image check, and alarms.

    Args:
        predictions: JSON lines, from `crossray generate` or your own; a JSON list of such rows; or a submission to
            ReXrank.
        data: prepared dataset for the trivial baselines, and for the true reports if the predictions have none; by
            default, the one that the predictions name.
        out: JSON file for the scores; default: next to the predictions.
        markdown: also write the tables to this Markdown file.
        meteor: METEOR 1.5 needs Java and pycocoevalcap; auto computes it if both are installed.
        labeler: labeler for the clinical scores: rules (built in), a folder with converted CheXbert weights, or the
            name of a labeler from another package.
        convention: how the rules define the observations: crossray, or chexpert, as the CheXpert labeler does.
        published: also print the result below the published tables for this dataset, with the differences in protocol.
        references: predictions of another system on the same studies, whose true reports are used for both protocols.
        section: section that predictions without references describe; for a ReXrank submission, the section to compare;
            by default, the one in the header of the predictions, or else findings.
        cleaner: cleaner for both predictions and references; by default, for predictions without references the one in
            their header, or else legacy, and legacy for those from ReXrank; others are scored as they are.
        studies: text file with the identifiers of the studies to score, one per line; they become part of the protocol.
        sample: number of studies to draw at random with --seed; they are the same for all files with the same studies.
        resamples: number of bootstrap resamples for every interval.
        seed: random seed of the resampling and of --sample.
    """
    from crossray.data.store import Dataset
    from crossray.evaluation.evaluate import evaluate as score
    from crossray.evaluation.labelers import open_labeler
    from crossray.evaluation.predictions import scores_path
    from crossray.evaluation.predictions.exchange import open_predictions
    from crossray.files.write import WriteError, write_whole
    from crossray.pages.printing import markdown_page, print_evaluation
    from crossray.pages.published_tables import print_published, published_page

    reader = open_labeler(labeler, convention)
    dataset = None if data is None else Dataset.open(data)
    with console().status("scoring"):
        file = open_predictions(
            predictions,
            dataset=dataset,
            references=references,
            section=section,
            cleaner=cleaner,
            studies=studies,
            sample=sample,
            seed=seed,
        )
        result = score(file, dataset=dataset, meteor=meteor, labeler=reader, resamples=resamples, seed=seed)
    target = out or scores_path(predictions, file.provenance.subset)
    if markdown is not None:
        tables = markdown_page(result)
        write_whole(markdown, tables + ("\n" + published_page(result, published, dataset=dataset) if published else ""))
    failure = None
    try:
        result.save(target)  # before printing, because a pipe may end early
    except WriteError as error:
        failure = error
    print_evaluation(result, console())
    if published is not None:
        print_published(result, published, console(), dataset=dataset)
    if markdown is not None:
        console().print(f"tables in {markdown}")
    if failure is None:
        console().print(f"scores in {target}")
    elif out is not None:
        raise failure
    else:  # a read-only folder; the tables are still printed
        console().print(f"scores not saved: {failure}", highlight=False)
