"""The page about a prepared dataset says what is in it and nothing of its reports."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossray import cli
from crossray.data.images import ImageFile
from crossray.data.store import Dataset, write_dataset
from crossray.data.study import Study
from crossray.errors import UserError
from crossray.pages.inspect_page import inspect_page

SECRET = "Large effusion."


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three studies, one with two views, one called like markup; one more that is rejected."""
    for i, shape in enumerate(((40, 50), (50, 40))):
        Image.fromarray(np.full(shape, 50 * i + 50, np.uint8)).save(tmp_path / f"{i}.png")
    frontal, lateral = ImageFile(tmp_path / "0.png", "pa"), ImageFile(tmp_path / "1.png", "lateral")
    studies = [
        Study("<b>1", "p", "train", SECRET, images=(frontal, lateral), labels={"pleural_effusion": "positive"}),
        Study("2", "p", "train", SECRET, images=(frontal,), labels={"pleural_effusion": "negative"}),
        Study("3", "q", "test", "Clear and normal lungs.", images=(frontal,), labels={"edema": "uncertain"}),
        Study("4", "q", "test", "No image.", images=()),
    ]
    notes = {
        "filter_steps": [{"step": "in the source", "reports": 5, "images": 9}],
        "reports_with_xxxx": 6,
        "paper_statistics": {"train": [52, 27, 28, 37.56]},
    }
    return write_dataset(tmp_path / "set", studies, size=32, source={"kind": "test"}, workers=0, notes=notes)


def row(page: str, name: str) -> list[str]:
    """Cells of the table row that begins with `name`."""
    match = re.search(rf'<tr[^>]*><th scope="row">{re.escape(name)}</th>(.*?)</tr>', page)
    assert match is not None, name
    return re.findall(r"<td>(.*?)</td>", match[1])


def test_counts_lengths_and_labels(dataset: Dataset) -> None:
    page = inspect_page(dataset)
    assert row(page, "train") == ["2", "3", "1", "3.00", "50.0%"]
    assert row(page, "test") == ["1", "1", "1", "5.00", "100.0%"]
    assert row(page, "all")[:3] == ["3", "4", "2"]
    assert row(page, "rejected: no_image") == ["1"]
    assert row(page, "source: in the source") == ["5 reports, 9 images"]
    assert row(page, "source: reports with xxxx") == ["6"]
    assert row(page, "train, papers") == ["52", "27", "28", "37.56"]
    assert row(page, "train, ours") == ["3", "2", "1", "3.00"]
    assert (row(page, "studies with 1 view"), row(page, "studies with 2 views")) == (["2"], ["1"])
    assert (row(page, "images: pa"), row(page, "images: lateral")) == (["3"], ["1"])
    assert row(page, "pleural effusion") == ["1", "1", "1", "0"]
    assert row(page, "edema") == ["2", "0", "0", "1"]


def test_the_page_is_one_file_without_report_text_or_foreign_markup(dataset: Dataset) -> None:
    page = inspect_page(dataset)
    assert SECRET not in page
    assert "<b>" not in page and "&lt;b&gt;1" in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 4
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)


def test_the_contact_sheet_holds_whole_studies_up_to_its_limit(dataset: Dataset) -> None:
    assert all(inspect_page(dataset, images=count).count("<img") <= count for count in range(5))
    assert inspect_page(dataset, images=4).count("<img") == 4
    with pytest.raises(UserError, match="negative"):
        inspect_page(dataset, images=-1)


def test_the_command(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["inspect", str(dataset.path), "--out", str(tmp_path / "page.html")])
    said = capsys.readouterr().out
    assert "3 kept with 4 images" in said
    assert "no studies in split val" in said
    assert (tmp_path / "page.html").read_text() == inspect_page(dataset)
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", str(dataset.path), "--out", str(tmp_path / "page.html" / "below-a-file.html")])
    assert stop.value.code == 2
