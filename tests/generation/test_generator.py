"""From a model folder to predictions files."""

import itertools
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from tests.data.images.dicom_files import dicom

from crossray import cli
from crossray.commands.generate import generate
from crossray.data.batches.batch import Inputs
from crossray.data.batches.features import build_features, find_features
from crossray.data.batches.transform import ImageTransform
from crossray.data.images import read_image
from crossray.data.store import Dataset
from crossray.decoding.config import DecodingConfig
from crossray.decoding.reports import write_reports
from crossray.errors import UserError
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.predictions import PredictionFile
from crossray.generation.files import study_ids
from crossray.generation.generator import Generator


def test_files(folder, data, tmp_path):
    studies = [[data / "0-0.png"], [data / "1-0.png", data / "1-1.png"], [data / "2-0.png"]]
    out = tmp_path / "new" / "predictions.jsonl"
    seen = []
    generator = Generator.from_pretrained(folder)
    assert generator.generate_files(studies, out, batch_size=2, progress=lambda *counts: seen.append(counts)) == 3
    file = PredictionFile.load(out)
    assert [row.id for row in file.rows] == ["0-0", "1-0+1-1", "2-0"]
    assert file.rows[1].images == (str(data / "1-0.png"), str(data / "1-1.png"))
    assert all(row.prediction and row.log_probability < 0 for row in file.rows)
    assert all(0 < row.seconds < 60 for row in file.rows)
    assert seen == [(2, 3), (3, 3)]
    header = file.provenance
    assert (header.system, header.model, header.views, header.max_length) == ("baseline", str(folder), "2", 20)
    assert (header.decoding["beam"], header.decoding["max_length"]) == (2, 12)
    assert len(header.versions["weights_sha256"]) == 64


def test_a_list_of_studies_orders_views_as_its_positions_say(folder, data, tmp_path):
    """`prepare manifest` does, so a list without them would show the model the views in another order."""
    table = data / "views.csv"
    table.write_text("study,images,views\na,1-1.png;1-0.png,lateral;pa\nb,1-0.png;1-1.png,\n")
    generate([], str(folder), out=tmp_path / "out.jsonl", studies=table, device="cpu")
    first, second = PredictionFile.load(tmp_path / "out.jsonl").rows
    assert first.images == second.images == (str(data / "1-0.png"), str(data / "1-1.png"))
    assert first.prediction == second.prediction
    for views, remedy in (("pa", "1 position for 2 images"), ("pa;axial", "is not one of unknown, frontal")):
        table.write_text(f"study,images,views\na,1-1.png;1-0.png,{views}\n")
        with pytest.raises(UserError, match=rf"views\.csv: line 2: views: .*{remedy}"):
            generate([], str(folder), out=tmp_path / "out.jsonl", studies=table, device="cpu")


def test_reports_do_not_replace_an_image_of_the_list(folder, data, tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes((data / "0-0.png").read_bytes())
    for name, text in (("list.csv", "images\na.png\n"), ("list.txt", "a.png\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=r"--out .*a\.png is read by images"):
            generate([], str(folder), out=image, studies=tmp_path / name, device="cpu")
    assert image.read_bytes() == (data / "0-0.png").read_bytes()


def test_a_list_of_studies_keeps_its_names(folder, data, tmp_path):
    """A manifest is such a list: the reports must be scored against the references of the same rows."""
    table = data / "list.csv"
    table.write_text("study;Images;findings\nb;1-0.png, 1-1.png;x\na;0-0.png;y\n")
    out = tmp_path / "out.jsonl"
    generate([], str(folder), out=out, studies=table, device="cpu")
    rows = PredictionFile.load(out).rows
    assert [(row.id, len(row.images)) for row in rows] == [("b", 2), ("a", 1)]
    Generator.from_pretrained(folder).generate_files([[data / "0-0.png"]], tmp_path / "one.jsonl")
    assert PredictionFile.load(tmp_path / "one.jsonl").rows[0].prediction == rows[1].prediction
    table.write_text("study,images\nb,1-0.png;1-1.png\nb,0-0.png\n")
    with pytest.raises(UserError, match=r"list\.csv: line 3: study 'b' is also in line 2"):
        generate([], str(folder), out=out, studies=table, device="cpu")
    table.write_text("study,images\nb,\n")
    with pytest.raises(UserError, match=r"list\.csv: line 2: images: is empty"):
        generate([], str(folder), out=out, studies=table, device="cpu")
    # names as `crossray prepare manifest` gives them, and views as it reads them
    (data / "a,1.png").write_bytes((data / "0-0.png").read_bytes())
    table.write_text('images,study\n"a,1.png",12.0\n"1-0.png;1-1.png",\n')
    generate([], str(folder), out=out, studies=table, device="cpu")
    assert [(row.id, len(row.images)) for row in PredictionFile.load(out).rows] == [("12", 1), ("line-3", 2)]
    table = data / "list.jsonl"
    for images in ("5", '{"a": 1}', "[5]", "true", r'"\ud800.png"'):
        table.write_text(f'{{"images": {images}}}\n')
        with pytest.raises(UserError, match=r"list\.jsonl: line 1: images: is no list of texts; name the files"):
            generate([], str(folder), out=out, studies=table, device="cpu")
    table.write_text('{"study": "\\ud800", "images": ["1-0.png"]}\n')
    with pytest.raises(UserError, match="line 1: study: contains an incomplete character"):
        generate([], str(folder), out=out, studies=table, device="cpu")
    table.write_text('{"study": "z", "images": ["1-0.png", "1-1.png"]}\n')
    generate([f"{data}/0-0.png"], str(folder), out=tmp_path / "a.jsonl", device="cpu")
    generate([], str(folder), out=out, studies=table, device="cpu")
    assert [(row.id, len(row.images)) for row in PredictionFile.load(out).rows] == [("z", 2)]
    generate([f"{data}/1-0.png, {data}/1-1.png", str(data / "a,1.png")], str(folder), out=out, device="cpu")
    assert [len(row.images) for row in PredictionFile.load(out).rows] == [2, 1]
    with pytest.raises(UserError, match="but the model takes 2"):  # too long to be the name of one file
        generate([",".join(f"{data}/{'1.2.' * 20}{view}.png" for view in range(4))], str(folder), out=out, device="cpu")


def test_a_list_in_json_names_studies_as_a_manifest_does(folder, data, tmp_path):
    table, out = data / "zero.jsonl", tmp_path / "out.jsonl"
    table.write_text('{"study": 0, "images": ["0-0.png", ""]}\n')
    generate([], str(folder), out=out, studies=table, device="cpu")
    assert [(row.id, len(row.images)) for row in PredictionFile.load(out).rows] == [("0", 1)]
    table.write_text('{"study": 0, "images": [""]}\n')  # not the folder of the list
    with pytest.raises(UserError, match=r"zero\.jsonl: line 1: images: is empty"):
        generate([], str(folder), out=out, studies=table, device="cpu")


def test_a_dataset_in_a_folder_that_is_no_utf8(folder, data, tmp_path, monkeypatch):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    shutil.copytree(data / "prepared", f"{place}/data")
    monkeypatch.chdir(place)
    Generator.from_pretrained(folder).generate_dataset("data", "test", tmp_path / "out.jsonl")
    assert PredictionFile.load(tmp_path / "out.jsonl").provenance.data == f"{tmp_path}/caf\\xe9/data"


def test_repeated_studies_are_numbered(tmp_path):
    deep = [[tmp_path / "x.jpg"]] * 2
    assert study_ids(deep) == ["x", "x#2"]
    assert study_ids([[Path("a.png")], [Path("a.png")], [Path("a#2.png")]]) == ["a", "a#2", "a#2#2"]


def test_dicom_files_and_folders(folder, data, tmp_path):
    """The reports are those of the same pixels in PNG files."""
    window = {"WindowCenter": "127.5", "WindowWidth": "255", "VOILUTFunction": "LINEAR_EXACT"}
    series = tmp_path / "1.2.840.7"
    series.mkdir()
    for view, position in ((0, "PA"), (1, "LL")):
        content = dicom(read_image(data / f"1-{view}.png"), ViewPosition=position, **window)
        (series / f"{1 - view}.dcm").write_bytes(content)
    (tmp_path / "single.dcm").write_bytes(dicom(read_image(data / "0-0.png"), **window))
    generator = Generator.from_pretrained(folder)
    generator.generate_files([[tmp_path / "single.dcm"], [series]], tmp_path / "dicom.jsonl")
    generator.generate_files([[data / "0-0.png"], [data / "1-0.png", data / "1-1.png"]], tmp_path / "png.jsonl")
    ours, other = (PredictionFile.load(tmp_path / name) for name in ("dicom.jsonl", "png.jsonl"))
    assert [row.id for row in ours.rows] == ["single", "1.2.840.7"]
    assert ours.rows[1].images == (str(series / "1.dcm"), str(series / "0.dcm"))
    assert [row.prediction for row in ours.rows] == [row.prediction for row in other.rows]


def test_files_and_dataset_agree_and_batches_do_not_matter(folder, data, tmp_path):
    generator = Generator.from_pretrained(folder.parent)  # the folder of a training run
    studies = [[data / f"{n}-{view}.png" for view in range(1 + n % 2)] for n in range(5)]
    generator.generate_files(studies, tmp_path / "files.jsonl", batch_size=5)
    assert generator.generate_dataset(data / "prepared", "test", tmp_path / "data.jsonl", batch_size=2) == 5
    files, dataset = (PredictionFile.load(tmp_path / name) for name in ("files.jsonl", "data.jsonl"))
    assert files.hypotheses() == dataset.hypotheses()
    for ours, other in zip(files.rows, dataset.rows, strict=True):
        assert ours.log_probability == pytest.approx(other.log_probability, abs=1e-3)
    assert dataset.references("full")[1] == "there is a left effusion . no pneumothorax ."
    assert dataset.protocols() == ("r2gen", "full")
    assert dataset.rows[1].images == ("frontal", "lateral")
    assert (dataset.provenance.split, dataset.provenance.min_count) == ("test", 1)
    assert dataset.provenance.data_sha256 == Dataset.open(data / "prepared").info.sha256


def test_shuffled_images_are_those_of_other_studies(folder, data, tmp_path):
    """The reports change places as the images do, the references stay; scoring says what was scored."""
    generator = Generator.from_pretrained(folder)
    generator.generate_dataset(data / "prepared", "test", tmp_path / "own.jsonl")
    generator.generate_dataset(data / "prepared", "test", tmp_path / "other.jsonl", shuffle_images=1)
    own, other = (PredictionFile.load(tmp_path / name) for name in ("own.jsonl", "other.jsonl"))
    assert not own.provenance.shuffled_images and other.provenance.shuffled_images
    assert other.references("full") == own.references("full")
    by_probability = {round(row.log_probability, 3): row for row in own.rows}
    assert len(by_probability) == len(own.rows)
    givers = [by_probability[round(row.log_probability, 3)] for row in other.rows]
    assert [row.prediction for row in other.rows] == [giver.prediction for giver in givers]
    assert [row.images for row in other.rows] == [giver.images for giver in givers]
    assert all(row.id != giver.id for row, giver in zip(other.rows, givers, strict=True))
    notes = evaluate(other, meteor="no", resamples=10).notes
    assert any("shuffled between studies" in note for note in notes)
    assert not any("shuffled between studies" in note for note in evaluate(own, meteor="no", resamples=10).notes)


def test_predictions_equal_those_of_validation(folder, data, tmp_path):
    """The same views through `write_reports` by hand."""
    generator = Generator.from_pretrained(folder)
    generator.generate_files([[data / "0-0.png"]], tmp_path / "one.jsonl")
    dataset = Dataset.open(data / "prepared")
    pixels = torch.from_numpy(dataset.image(0).copy())[None, None]
    images = generator.transform.apply(pixels, torch.tensor([pixels.shape[2:]]), train=False)[None]
    absent = torch.zeros_like(images)
    inputs = Inputs(
        torch.cat([images, absent], 1), torch.zeros(1, 2, 2, dtype=torch.long), torch.tensor([[True, False]]),
        torch.zeros(1, 2, dtype=torch.long),
    )  # fmt: skip
    written = write_reports(generator.model, inputs, DecodingConfig(beam=2, max_length=12), need_attention=True)[0]
    row = PredictionFile.load(tmp_path / "one.jsonl").rows[0]
    assert row.prediction == written.text
    assert row.log_probability == pytest.approx(written.log_probability, abs=1e-3)
    assert written.cross_attention.shape == (1, 2, len(written.token_log_probabilities), 2)
    assert generator.tokenizer.decode(written.tokens) == written.text


def test_cached_features_are_used(folder, data, tmp_path, monkeypatch):
    generator = Generator.from_pretrained(folder)
    dataset = Dataset.open(data / "prepared")
    generator.generate_dataset(dataset, "test", tmp_path / "images.jsonl")
    fingerprint = generator.model.features_fingerprint()
    assert find_features(dataset, generator.transform, fingerprint) is None
    build_features(
        dataset, generator.model.prepare_features, generator.transform, fingerprint, variants=2, dtype="float32"
    )
    assert find_features(dataset, ImageTransform(size=31, resize=40), fingerprint) is None
    assert find_features(dataset, generator.transform, "other weights") is None
    monkeypatch.setattr(type(generator.model.backbone), "extract", lambda *_: pytest.fail("the backbone was run"))
    generator.generate_dataset(dataset, "test", tmp_path / "features.jsonl")
    images, features = (PredictionFile.load(tmp_path / f"{name}.jsonl") for name in ("images", "features"))
    assert images.hypotheses() == features.hypotheses()


def test_batches_shrink_when_memory_runs_out(folder, data, tmp_path, monkeypatch):
    generator = Generator.from_pretrained(folder)
    generator.generate_dataset(data / "prepared", "test", tmp_path / "expected.jsonl", batch_size=5)
    encode, sizes = type(generator.model).encode, []

    def limited(limit):
        def run(self, inputs, guide=None):
            sizes.append(inputs.size)
            if inputs.size > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return encode(self, inputs, guide)

        return run

    monkeypatch.setattr(type(generator.model), "encode", limited(2))
    assert generator.generate_dataset(data / "prepared", "test", tmp_path / "small.jsonl", batch_size=5) == 5
    assert sizes == [5, 2, 2, 1]
    expected, small = (PredictionFile.load(tmp_path / f"{name}.jsonl") for name in ("expected", "small"))
    assert expected.hypotheses() == small.hypotheses()

    monkeypatch.setattr(type(generator.model), "encode", limited(0))
    with pytest.raises(UserError, match="there is not enough memory for even one study"):
        generator.generate_dataset(data / "prepared", "test", tmp_path / "none.jsonl")
    assert not list(tmp_path.glob("*none*"))


def test_another_error_is_not_taken_for_missing_memory(folder, data, tmp_path, monkeypatch):
    generator = Generator.from_pretrained(folder)

    def broken(self, inputs, guide=None):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(type(generator.model), "encode", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        generator.generate_dataset(data / "prepared", "test", tmp_path / "none.jsonl")


def test_bad_images_are_named_before_the_model_runs(folder, data, tmp_path, monkeypatch):
    generator = Generator.from_pretrained(folder)
    monkeypatch.setattr(type(generator.model), "encode", lambda *_: pytest.fail("the model was run"))
    empty = tmp_path / "empty.png"
    empty.touch()
    out = tmp_path / "predictions.jsonl"
    out.write_text("old\n")
    for studies, message in (
        ([[data / "0-0.png"], [empty]], "empty.png"),
        ([[data / "0-0.png"], [tmp_path / "missing.png"]], "missing.png"),
        ([[data / "0-0.png", data / "1-0.png", data / "2-0.png"]], "2-0.png is view 3 .* takes 2"),
        ([[]], "no view"),
        ([], "none are given"),
    ):
        with pytest.raises(UserError, match=message):
            generator.generate_files(studies, out)
    assert {path.name for path in tmp_path.iterdir()} == {"empty.png", "predictions.jsonl"}
    assert out.read_text() == "old\n"


def test_wrong_folders_devices_and_words(folder, data, tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        Generator.from_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^device 'toaster'"):
        Generator.from_pretrained(folder, device="toaster")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device 'cuda'"):
            Generator.from_pretrained(folder, device="cuda")
    with pytest.raises(UserError, match="'forbidden' contains 'zebra'"):
        Generator.from_pretrained(folder, decoding=DecodingConfig(forbidden=("heart", "zebra")))
    with pytest.raises(UserError, match="split 'val' has no studies"):
        Generator.from_pretrained(folder).generate_dataset(data / "prepared", "val", tmp_path / "out.jsonl")
    incomplete = tmp_path / "incomplete"
    incomplete.mkdir()
    for name in ("config.json", "model.safetensors", "preprocess.json"):
        (incomplete / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match=r"incomplete: tokenizer\.json is missing"):
        Generator.from_pretrained(incomplete)


def test_a_folder_without_provenance_decodes_by_default(folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors", "preprocess.json", "tokenizer.json"):
        (bare / name).write_bytes((folder / name).read_bytes())
    generator = Generator.from_pretrained(bare)
    assert generator.decoding == DecodingConfig(max_length=20)
    assert generator.section == "findings"


def test_forbidden_words_do_not_appear(folder, data, tmp_path):
    free = Generator.from_pretrained(folder)
    free.generate_dataset(data / "prepared", "test", tmp_path / "free.jsonl")
    word = PredictionFile.load(tmp_path / "free.jsonl").rows[0].prediction.split()[0]
    strict = Generator.from_pretrained(folder, decoding=DecodingConfig(max_length=12, forbidden=(word,)))
    strict.generate_dataset(data / "prepared", "test", tmp_path / "strict.jsonl")
    assert not any(word in text.split() for text in PredictionFile.load(tmp_path / "strict.jsonl").hypotheses())


def test_sampling_repeats_and_depends_on_the_study_not_its_batch(folder, data, tmp_path):
    config = DecodingConfig(method="sample", max_length=12, seed=5)
    texts = []
    for batch_size in (5, 2):
        out = tmp_path / f"{batch_size}.jsonl"
        Generator.from_pretrained(folder, decoding=config).generate_dataset(
            data / "prepared", "test", out, batch_size=batch_size
        )
        texts.append(PredictionFile.load(out).hypotheses())
    assert texts[0] == texts[1]
    assert json.loads(out.read_text().splitlines()[0])["crossray"]["decoding"]["seed"] == 5


def test_the_command_says_how_long_the_model_took_and_prints_only_the_report(folder, data, capsys, monkeypatch):
    monkeypatch.setattr("crossray.generation.generator.time.perf_counter", itertools.count(0, 5).__next__)
    cli.main(["generate", str(data / "0-0.png"), "--model", str(folder), "--device", "cpu"])
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert "The model took 5.0 s." in printed.err
