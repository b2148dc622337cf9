"""`crossray export`: predictions for other programs."""

from pathlib import Path
from typing import Literal

from crossray.commands.show import console


def export(
    predictions: Path,
    out: Path,
    format: Literal["rexrank", "pairs", "jsonl"] = "rexrank",
    benchmark: Path | None = None,
    data: Path | None = None,
    protocol: Literal["full", "r2gen"] = "full",
    references: Path | None = None,
    section: Literal["findings", "impression", "report"] = "findings",
    cleaner: Literal["legacy", "legacy_mimic", "fixed", "none"] = "legacy",
    studies: Path | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> None:
    """Write predictions as a submission to ReXrank, as pairs for other metrics, or as JSON lines with references.

    Args:
        predictions: what `crossray evaluate` reads.
        out: file to write.
        format: a submission to ReXrank; pairs, which is one JSON of ids, references and hypotheses; or our JSON lines.
        benchmark: ReXrank's own file of the studies, for a submission.
        data: prepared dataset with the true reports; by default the one that the predictions name.
        protocol: which references to write as pairs.
        references: predictions of another system on the same studies, to take the true reports of both protocols from.
        section: section that predictions without references are about; of a submission to ReXrank, what is compared.
        cleaner: cleaner of both sides where predictions come without references or from ReXrank.
        studies: text file with the identifiers of the studies to write, one a line.
        sample: number of studies to draw at random with --seed.
        seed: seed of --sample.
    """
    from crossray.evaluation.predictions.exchange import export as write
    from crossray.evaluation.predictions.exchange import open_predictions

    file = open_predictions(
        predictions,
        dataset=data,
        references=references,
        section=section,
        cleaner=cleaner,
        studies=studies,
        sample=sample,
        seed=seed,
    )
    count = write(file, out, format, studies=benchmark, dataset=data, protocol=protocol)
    console().print(f"{count} studies in {out}")
