"""Studies that are given as files or folders: their names, the order of their views, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.images.dicom_files import dicom

from crossray.data.images import read_image
from crossray.data.study import VIEW_POSITIONS
from crossray.errors import UserError
from crossray.generation.files import folder_views, read_study, stack_studies, study_ids


@pytest.mark.parametrize(
    ("studies", "names"),
    [
        (["a.png", "b.jpg"], ["a", "b"]),
        (["frontal.png,lateral.png"], ["frontal+lateral"]),
        (["x/0.png,x/1.png", "y/0.png,y/1.png"], ["x/0+x/1", "y/0+y/1"]),
        (["a.png", "a.jpg"], ["a", "a#2"]),
        (["r/x/0.png", "s/x/0.png"], ["r/x/0", "s/x/0"]),
        (["a.png", "b.png", "a.png", "a.png"], ["a", "b", "a#2", "a#3"]),
        ([], []),
    ],
)
def test_names_are_short_and_unique(studies, names):
    assert study_ids([[Path(name) for name in study.split(",")] for study in studies]) == names


@pytest.mark.parametrize(
    ("studies", "names"),
    [(["in/1.2.840.1", "in/1.2.840.2"], ["1.2.840.1", "1.2.840.2"]), (["scan.DCM"], ["scan"]), (["1.2.3"], ["1.2.3"])],
)
def test_identifiers_with_dots_stay_whole(studies, names):
    assert study_ids([[Path(study)] for study in studies]) == names


def write_view(path: Path, position: str | None = None, study: str = "2.25.1", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 4096, (40, 50), dtype=np.uint16)
    path.write_bytes(dicom(values, BitsStored=12, ViewPosition=position, StudyInstanceUID=study))
    return path


class TestFolders:
    def test_frontal_views_come_first(self, tmp_path):
        lateral, frontal = write_view(tmp_path / "a/1", "LL"), write_view(tmp_path / "b/2", "PA")
        other = write_view(tmp_path / "a/0")
        (tmp_path / "DICOMDIR").write_bytes(b"index")
        (tmp_path / ".hidden").write_bytes(b"rest")
        assert folder_views(tmp_path, 3) == [frontal, lateral, other]

    def test_a_study_from_a_folder(self, tmp_path):
        paths = [write_view(tmp_path / "1.dcm", "LL", seed=1), write_view(tmp_path / "2.dcm", "AP", seed=2)]
        study = read_study([tmp_path], 2, 40)
        assert study.paths == (paths[1], paths[0])
        np.testing.assert_array_equal(study.pixels[1], read_image(paths[0]))
        inputs = stack_studies([study], 3)
        assert [VIEW_POSITIONS[code] for code in inputs.view_position[0].tolist()] == ["ap", "lateral", "unknown"]
        assert inputs.view_mask.tolist() == [[True, True, False]]

    def test_pictures_in_a_folder_are_in_the_order_of_their_names(self, tmp_path):
        for name in ("1.png", "0.png"):
            Image.new("L", (40, 40)).save(tmp_path / name)
        assert [path.name for path in folder_views(tmp_path, 2)] == ["0.png", "1.png"]

    def test_what_a_folder_must_not_hold(self, tmp_path):
        with pytest.raises(UserError, match="contains no image"):
            folder_views(tmp_path, 2)
        write_view(tmp_path / "1")
        (tmp_path / "view.png").write_bytes(b"to be read")
        with pytest.raises(UserError, match=r"view\.png: not a PNG, JPEG or DICOM file"):
            read_study([tmp_path], 2, 40)
        (tmp_path / "view.png").unlink()
        write_view(tmp_path / "2", study="2.25.9")
        for given in ([tmp_path], [tmp_path / "1", tmp_path / "2"]):
            with pytest.raises(UserError, match="StudyInstanceUID differs") as caught:
                read_study(given, 2, 40)
            assert "2.25" not in str(caught.value)
        with pytest.raises(UserError, match="holds 2 files, but the model takes only 1"):
            folder_views(tmp_path, 1)
