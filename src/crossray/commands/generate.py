"""`crossray generate`: generates reports for images or for a split of a dataset."""

import json
from pathlib import Path
from typing import Literal

from crossray.errors import UserError, counted, quoted
from crossray.pages.terminal import console, progress_bar


def generate(
    images: list[str],
    model: str,
    out: Path | None = None,
    data: Path | None = None,
    split: Literal["train", "val", "test", "all"] = "test",
    studies: Path | None = None,
    decoding: dict[str, str] | None = None,
    batch_size: int = 64,
    shuffle_images: int | None = None,
    strict: bool = False,
    device: str = "auto",
) -> None:
    """Generate reports for images, or for one split of a prepared dataset.

    Args:
        images: one study per argument: PNG, JPEG or DICOM files, the views of a study separated by commas
            (frontal.png,lateral.png), or a folder with the views of one study.
        model: model folder, the folder of a training run (its best model is taken), or user/name on the hub.
        out: predictions file (JSON lines); without it, the report of a single study is printed.
        data: prepared dataset, instead of images.
        split: split of --data; use all for a model trained on another dataset.
        studies: list of studies instead of images: a text file with one study per line, its views separated by commas;
            or a CSV file with the views, separated by ";" or commas, in the column "images" and, if you like, the
            studies' names in the column "study", such as a manifest. Paths are relative to the file.
        decoding: decoding fields to override, such as --decoding.method greedy.
        batch_size: studies per batch; halved automatically when memory runs out.
        shuffle_images: seed of a shuffle that gives each study of --data the images of another one, to measure how
            much scores depend on the images.
        strict: write nothing if the input check (see `crossray calibrate`) flags an image as turned, inverted, mirrored
            or unlike the training images. Without this option, flags are warnings.
        device: auto (a GPU if there is one), cpu, cuda or cuda:1.
    """
    from crossray.api import load

    if (bool(images) + (data is not None) + (studies is not None)) != 1:
        raise UserError("give either image files, --studies FILE or --data FOLDER.")
    if data is None and shuffle_images is not None:
        raise UserError("--shuffle-images needs --data, because it shuffles images between the studies of a dataset.")
    if data is not None and strict:
        raise UserError("--strict applies to image files only; leave it out with --data.")
    names = None
    listed = [_views(study) for study in images]
    if studies is not None:
        listed, names = _listed(studies)
    if out is None and len(listed) != 1:
        raise UserError(
            "--out is missing; name a predictions file, because only the report of a single study can be printed."
        )
    generator = load(model, device=device, decoding=_values(decoding)).generator
    with progress_bar("writing reports") as progress:
        if data is not None:
            assert out is not None
            count = generator.generate_dataset(
                data, split, out, batch_size=batch_size, shuffle_images=shuffle_images, progress=progress
            )
        elif out is not None:
            count = generator.generate_files(
                listed, out, batch_size=batch_size, strict=strict, names=names, progress=progress
            )
        else:
            from crossray.text.display import readable

            (written,) = generator.report_files(listed, strict=strict, names=names)
            console().print(readable(written.report.text), markup=False, highlight=False, soft_wrap=True)
            return
    console().print(f"{counted(count, 'report')} in {out}")


def _values(given: dict[str, str] | None) -> dict[str, object]:
    """Parse the values of --decoding.* as JSON; a value that is not JSON stays text."""
    values: dict[str, object] = {}
    for name, text in (given or {}).items():
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def _views(study: str) -> list[Path]:
    """The views of one study: an existing file, or several separated by commas."""
    if Path(study).exists():
        return [Path(study)]
    return [Path(name.strip()) for name in study.split(",") if name.strip()] or [Path(study)]


def _listed(path: Path) -> tuple[list[list[Path]], list[str] | None]:
    """The views of each study of a list, and the studies' names if the list has them."""
    from crossray.data.sources.manifest_faults import FaultError
    from crossray.data.sources.manifest_table import read_table

    names: list[str] | None = None
    if path.suffix.lower() == ".csv":
        columns, rows = read_table(path, "images")
        if "images" not in columns:
            raise UserError(f"--studies {path}: the column images is missing; name it in the first line.")
        lines, names = [], [] if "study" in columns else None
        for number, row in rows:
            if isinstance(row, FaultError):
                raise UserError(f"--studies {path}: {row.at(number)}.")
            lines.append(row["images"].replace(";", ","))
            if names is not None:
                names.append(row["study"].strip())
                if not names[-1]:
                    raise UserError(f"--studies {path}: line {number}: study: is empty; give the study a name.")
        if names is not None and len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"--studies {path}: study {quoted(twice)} appears twice; give every study its own name.")
    else:
        try:
            lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--studies {path}: cannot be read ({error}); give a text or CSV file in UTF-8.") from None
    listed = [[path.parent / view.strip() for view in line.split(",") if view.strip()] for line in lines]
    if empty := [number for number, views in enumerate(listed, 1) if not views]:
        raise UserError(f"--studies {path}: study {empty[0]} has no image; name at least one.")
    if not listed:
        raise UserError(f"--studies {path}: lists no studies; write one per line.")
    return listed, names
