"""`crossray explain`: a page that shows where models looked while they wrote the report of one study."""

from pathlib import Path

from crossray.errors import UserError, counted
from crossray.files.names import views_of
from crossray.pages.terminal import console


def explain(
    images: str | None,
    model: list[str],
    out: Path,
    data: Path | None = None,
    study: str | None = None,
    device: str = "auto",
) -> None:
    """Show where models look while they write a report, as an interactive page that works offline.

    Args:
        images: the views of one study, separated by commas (frontal.png,lateral.png).
        model: model folder, or the folder of a training run (its best model is taken); repeat it to compare several.
        out: HTML file to write.
        data: prepared dataset, instead of images.
        study: identifier of a study of --data; by default, its first test study.
        device: auto (a GPU if there is one), cpu, cuda or cuda:1.
    """
    from crossray.files.folders import short_names
    from crossray.files.write import write_whole
    from crossray.generation.generator import Generator
    from crossray.generation.studies import dataset_study, file_study
    from crossray.pages import explain as analysis

    if (images is None) == (data is None):
        raise UserError("give either the image files of one study or --data FOLDER.")
    if study is not None and data is None:
        raise UserError(f"--study {study!a} selects a study of a dataset; give --data FOLDER instead of image files.")
    explanations = []
    for name, folder in zip(short_names(model), model, strict=True):
        generator = Generator.from_pretrained(folder, device=device)
        if data is not None:
            shown = dataset_study(data, study, generator)
        else:
            shown = file_study(views_of(str(images)), generator)
        explanations.append(
            analysis.explain(generator.model, generator.decoding, shown.inputs, shown.name, name, shown.guide)
        )
    html = analysis.build_explanation(shown.name, explanations, reference=shown.reference, synthetic=shown.synthetic)
    write_whole(out, html)
    console().print(f"study {shown.name}, {counted(len(explanations), 'model')}: {out}", highlight=False)
