"""`crossray export`: predictions for other programs."""

from pathlib import Path
from typing import Literal

from crossray.errors import UserError, counted
from crossray.files.guard import check_outputs
from crossray.pages.terminal import console


def export(
    predictions: Path,
    out: Path,
    format: Literal["rexrank", "pairs", "jsonl", "text", "fhir", "sr"] = "rexrank",
    benchmark: Path | None = None,
    data: Path | None = None,
    protocol: Literal["full", "r2gen"] = "full",
    references: Path | None = None,
    section: Literal["findings", "impression", "report"] | None = None,
    cleaner: Literal["legacy", "legacy_mimic", "fixed", "none"] | None = None,
    studies: Path | None = None,
    sample: int | None = None,
    seed: int = 0,
    images: Path | None = None,
    subject: str | None = None,
    transaction: bool = False,
) -> None:
    """Write predictions for other programs: hospital systems (text, FHIR, DICOM SR), benchmarks, other metrics.

    Args:
        predictions: any file that `crossray evaluate` reads.
        out: file to write; for text, fhir and sr, a folder with one file per study.
        format: a submission to ReXrank; pairs, which is one JSON file of ids, references and hypotheses; CrossRay's
            JSON lines; text; fhir, a FHIR R4 bundle; or sr, a DICOM structured report that refers to the DICOM images.
        benchmark: ReXrank's own file of the studies, for a submission.
        data: prepared dataset with the true reports; by default, the one that the predictions name.
        protocol: protocol whose references are written as pairs.
        references: predictions of another system on the same studies, whose true reports are used for both protocols.
        section: section that predictions without references describe; for a ReXrank submission, the section to compare;
            by default, the one in the header of the predictions, or else findings.
        cleaner: cleaner for both predictions and references; by default as for `crossray evaluate`.
        studies: text file with the identifiers of the studies to write, one per line.
        sample: number of studies to draw at random, with --seed.
        seed: random seed of --sample.
        images: for fhir and sr, the folder to which image paths in the predictions are relative; by default, the
            current folder.
        subject: for fhir, the patient of a single study on the receiving server (Patient/123), instead of the images'
            PatientID.
        transaction: for fhir, write transaction bundles to post to a server instead of document bundles.
    """
    hospital = format in ("text", "fhir", "sr")
    given_files = {"--references": references, "--benchmark": benchmark, "--studies": studies}
    inputs = {name: [path] for name, path in given_files.items() if path is not None}
    check_outputs({"--out": (out, "folder" if hospital else "file")}, {"predictions": [predictions], **inputs})
    if not hospital and (images or subject or transaction):
        raise UserError(
            "--images, --subject and --transaction need --format fhir or sr; change the format or leave them out."
        )
    if format == "text" or format == "fhir" or format == "sr":
        from crossray.evaluation.predictions import PredictionFile
        from crossray.evaluation.predictions.exchange import choose, draw, identifiers
        from crossray.interop.export import export_reports

        given = PredictionFile.load(predictions, section=section or "findings", cleaner=cleaner or "legacy")
        if studies is not None:
            given = choose(given, identifiers(studies))
        if sample is not None:
            given = draw(given, sample, seed)
        count = export_reports(given, out, format, images=images, subject=subject, transaction=transaction)
        console().print(f"{counted(count, 'report')} in {out}: drafts by a machine, not verified; not a medical device")
        return
    from crossray.data.store import Dataset
    from crossray.evaluation.predictions.exchange import export as write
    from crossray.evaluation.predictions.exchange import open_predictions

    dataset = None if data is None else Dataset.open(data)
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
    count = write(file, out, format, studies=benchmark, dataset=dataset, protocol=protocol)
    console().print(f"{counted(count, 'study')} in {out}")
