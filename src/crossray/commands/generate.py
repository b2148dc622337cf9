"""`crossray generate`: generates reports for images or for a split of a dataset."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from crossray.errors import UserError, counted, quoted
from crossray.files.guard import check_outputs
from crossray.files.names import views_of
from crossray.pages.terminal import console, progress_bar


def generate(
    images: list[str],
    model: str,
    out: Path | None = None,
    data: Path | None = None,
    split: Literal["train", "val", "test", "all"] | None = None,
    studies: Path | None = None,
    decoding: dict[str, str] | None = None,
    batch_size: int = 64,
    shuffle_images: int | None = None,
    strict: bool = False,
    device: str = "auto",
    engine: Literal["process", "ray"] = "process",
    devices: int | None = None,
) -> None:
    """Generate reports for images, or for one split of a prepared dataset.

    Args:
        images: one study per argument: PNG, JPEG or DICOM files, the views of a study separated by commas
            (frontal.png,lateral.png), or a folder with the views of one study.
        model: model folder, the folder of a training run (its best model is taken), or user/name on the hub.
        out: predictions file (JSON lines); without it, the report of a single study is printed.
        data: prepared dataset, instead of images.
        split: split of --data, test by default; use all for a model trained on another dataset.
        studies: list of studies instead of images: a text file with one study per line, its views separated by commas;
            or a manifest or another CSV or JSONL file with the views in the column "images", separated by ";" or
            commas, and the studies' names in "study" and the positions in "views", if you like. Paths are relative to
            the file.
        decoding: decoding fields to override, such as --decoding.method greedy.
        batch_size: studies per batch; halved automatically when memory runs out.
        shuffle_images: seed of a shuffle that gives each study of --data the images of another one, to measure how
            much scores depend on the images.
        strict: for image files: write nothing if the input check (see `crossray calibrate`) flags one as turned,
            inverted, mirrored or unlike the training images. Without this option, flags are warnings.
        device: auto (a GPU if there is one), cpu, cuda or cuda:1.
        engine: this process, or ray for --data on the machines of a Ray cluster, which share a disk
            (pip install 'crossray[ray]'). On the same kind of device with the same number of threads, the reports are
            the same.
        devices: number of workers of --engine ray, with one GPU each, or one CPU core each without GPUs; by default,
            all of the cluster.
    """
    from crossray.api import load

    if (bool(images) + (data is not None) + (studies is not None)) != 1:
        raise UserError("give either image files, --studies FILE or --data FOLDER.")
    if data is None and shuffle_images is not None:
        raise UserError("--shuffle-images needs --data, because it shuffles images between the studies of a dataset.")
    if data is None and split is not None:
        raise UserError("--split needs --data, because image files have no splits; leave it out.")
    split = split or "test"
    if data is not None and strict:
        raise UserError("--strict applies to image files only; leave it out with --data.")
    if data is None and engine == "ray":
        raise UserError("--engine ray needs --data; prepare the images (`crossray prepare manifest`), or leave it out.")
    if devices is not None and engine != "ray":
        raise UserError("--devices needs --engine ray; add it, or leave out --devices.")
    names = positions = None
    listed = [views_of(study) for study in images]
    if studies is not None:
        listed, names, positions = _listed(studies)
        if out is not None:
            check_outputs({"--out": (out, "file")}, {"images": [view for views in listed for view in views]})
    if out is None and len(listed) != 1:
        raise UserError(
            "--out is missing; name a predictions file, because only the report of a single study can be printed."
        )
    # with Ray, the workers have the devices
    here = "cpu" if engine == "ray" else device
    generator = load(model, device=here, decoding=_values(decoding)).generator
    if data is not None:
        from crossray.data.store import Dataset
        from crossray.generation.lineage import warn_of_other_splits

        warn_of_other_splits(Path(generator.name), Dataset.open(data), split)
    with progress_bar("writing reports") as progress:
        if data is not None and engine == "ray":
            from crossray.generation.cluster import generate_on_ray

            assert out is not None
            count = generate_on_ray(
                generator, data, split, out, device=device, devices=devices, batch_size=batch_size,
                shuffle_images=shuffle_images, progress=progress,
            )  # fmt: skip
        elif data is not None:
            assert out is not None
            count = generator.generate_dataset(
                data, split, out, batch_size=batch_size, shuffle_images=shuffle_images, progress=progress
            )
        elif out is not None:
            count = generator.generate_files(
                listed, out, batch_size=batch_size, strict=strict, names=names, positions=positions, progress=progress
            )
        else:
            from crossray.text.display import readable

            (written,) = generator.report_files(listed, strict=strict, names=names, positions=positions)
            console().print(readable(written.report.text), highlight=False, soft_wrap=True)
            count = 1
    if out is not None:
        console().print(f"{counted(count, 'report')} in {out}")
    if generator.seconds:
        console(stderr=True).print(f"The model took {generator.seconds:.1f} s.", highlight=False)


def _values(given: dict[str, str] | None) -> dict[str, object]:
    """Parse the values of --decoding.* as JSON; a value that is not JSON stays text."""
    values: dict[str, object] = {}
    for name, text in (given or {}).items():
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def _listed(path: Path) -> tuple[list[list[Path]], list[str] | None, list[list[str]]]:
    """The views of each study of a list, the studies' names if the list has them, and the positions that it states."""
    table = path.suffix.lower() in (".csv", ".jsonl")
    listed: list[list[Path]] = []
    names: dict[str, int] = {}  # with their lines
    positions: list[list[str]] = []
    for line, views, name, stated in _table(path) if table else _lines(path):
        if not views:
            raise UserError(f"--studies {path}: line {line}: images: is empty; name at least one file.")
        if name is not None and names.setdefault(name, line) != line:
            raise UserError(
                f"--studies {path}: line {line}: study {quoted(name)} is also in line {names[name]}; rename one."
            )
        listed.append(views)
        positions.append(stated)
    if not listed:
        raise UserError(f"--studies {path}: lists no studies; write one per line.")
    return listed, list(names) or None, positions


def _lines(path: Path) -> Iterator[tuple[int, list[Path], None, list[str]]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--studies {path}: cannot be read ({error}); give a text or CSV file in UTF-8.") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, views_of(line, path.parent), None, []


def _table(path: Path) -> Iterator[tuple[int, list[Path], str | None, list[str]]]:
    """Rows of a table, whose studies and views have the names and positions of `crossray prepare manifest`."""
    from crossray.data.sources.identifiers import identifier
    from crossray.data.sources.manifest import listed_positions
    from crossray.data.sources.manifest_faults import FaultError
    from crossray.data.sources.manifest_table import read_table
    from crossray.files.names import is_text
    from crossray.files.tables import STUDY_COLUMNS

    columns, rows = read_table(path, "images")
    if "images" not in columns:
        raise UserError(f"--studies {path}: the column images is missing; name it in the first line.")
    named = next((name for name in STUDY_COLUMNS if name in columns), None)
    for line, row in rows:
        if isinstance(row, FaultError):
            raise UserError(f"--studies {path}: {row.at(line)}.")
        images = row.get("images") or ""
        if not all(map(is_text, images if isinstance(images, list) else [images])):
            raise UserError(f"--studies {path}: line {line}: images: is no list of texts; name the files.")
        listed = [path.parent / view for view in images if view.strip()] if isinstance(images, list) else None
        views = views_of(images, path.parent) if listed is None else listed
        given = "" if named is None or row.get(named) is None else str(row[named])
        name = None if named is None else identifier(given) or f"line-{line}"
        if name is not None and not is_text(name):
            raise UserError(f"--studies {path}: line {line}: {named}: contains an incomplete character; use UTF-8.")
        try:
            positions = listed_positions(row, views) if views else []
        except FaultError as fault:
            raise UserError(f"--studies {path}: {fault.at(line)}.") from None
        yield line, views, name, positions
