"""The service as its clients see it."""

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from tests.serving.conftest import images, png, save_model, wait

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

import crossray
from crossray.errors import UserError
from crossray.serving.desk import Desk
from crossray.serving.journal import Journal
from crossray.serving.problems import Problem
from crossray.serving.routes_reports import _events
from crossray.serving.settings import NOTICE, Limits


def finished(client: TestClient, address: str) -> Any:
    """Return the answer at the address of a report once the report is written."""
    wait(lambda: client.get(address).status_code != 202)
    return client.get(address)


def test_a_report_is_that_of_the_library(service: TestClient, model_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(3))
    ours = crossray.load(model_folder, device="cpu").report(path)
    answer = service.post("/v1/reports?include=attention,views", files=images(png(3))).json()
    assert answer["text"] == ours.text
    assert [row["text"] for row in answer["sentences"]] == [sentence.text for sentence in ours.sentences]
    assert [row["confidence"] for row in answer["sentences"]] == [
        pytest.approx(sentence.confidence, abs=1e-4) for sentence in ours.sentences
    ]
    assert {row["name"]: row["status"] for row in answer["observations"]} == ours.observations
    assert answer["notice"] == NOTICE
    assert answer["views"][0]["image"].startswith("data:image/png;base64,")
    side = answer["attention"]["side"]
    weights = ours.attention.maps.weights.mean(axis=1)
    assert sum(len(row["attention"][0]) for row in answer["sentences"]) == side**2 * len(answer["sentences"])
    first = answer["sentences"][0]
    words = len(first["text"].split()) + 1  # the full stop is a word of its own
    if len(ours.sentences) > 1:
        assert first["attention"][0] == pytest.approx(weights[:words].mean(axis=0)[0].flatten().tolist(), abs=1e-4)


def test_words_of_observations_stand_in_their_sentence(service: TestClient) -> None:
    for seed in range(5):
        answer = service.post("/v1/reports", files=images(png(seed))).json()
        for observation in answer["observations"]:
            for words in observation["words"]:
                assert words["text"] in answer["sentences"][words["sentence"]]["text"].lower()


def test_two_views_and_a_single_body(service: TestClient) -> None:
    both = service.post("/v1/reports", files=images(png(1), png(2))).json()
    assert [view["file"] for view in both["views"]] == [0, 1]
    body = service.post("/v1/reports", content=png(1), headers={"Content-Type": "image/png"})
    assert body.status_code == 200
    assert service.post("/v1/reports", files=images(*[png()] * 3)).status_code == 422


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "no file"),
        (b"nonsense", 422, "image 1"),
        (png()[:-30], 422, "truncated"),
        (png(size=(8, 8)), 422, ""),
    ],
)
def test_what_is_no_radiograph_is_refused(service: TestClient, content: bytes, status: int, words: str) -> None:
    answer = service.post("/v1/reports", files=images(content))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["detail"]
    assert "patient" not in answer.text


def test_a_report_is_read_again_and_deleted(service: TestClient) -> None:
    answer = service.post("/v1/reports", files=images(png())).json()
    address = f"/v1/reports/{answer['id']}"
    assert service.get(address).json() == answer
    assert service.get(address, params={"format": "text"}).text.startswith(answer["text"])
    assert NOTICE in service.get(address, headers={"Accept": "text/plain"}).text
    assert service.get(address, headers={"Accept": "image/png"}).status_code == 406
    assert service.delete(address).status_code == 204
    assert service.get(address).status_code == 404
    assert service.get("/v1/reports/..%2f..%2fetc").status_code == 404


def test_an_asynchronous_report_comes_later(service: TestClient) -> None:
    accepted = service.post("/v1/reports", files=images(png()), headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    answer = finished(service, accepted.headers["location"])
    assert answer.json()["id"] == accepted.json()["id"]


def test_a_repeated_key_writes_nothing(service: TestClient) -> None:
    def ask(content: bytes, query: str = "") -> Any:
        return service.post(f"/v1/reports{query}", files=images(content), headers={"Idempotency-Key": "k"})

    first = ask(png(1))
    assert first.json() == ask(png(1)).json() == ask(png(1), "?model=a&format=json").json()
    for other in (ask(png(2)), ask(png(1), "?model=b"), ask(png(1), "?include=attention")):
        assert (other.status_code, "Idempotency-Key" in other.json()["detail"]) == (422, True)


def test_a_repeated_key_never_mixes_two_patients(service: TestClient) -> None:
    pytest.importorskip("highdicom")
    from tests.interop.studies import image

    first, again, other = (
        service.post("/v1/reports?format=sr", files=images(content), headers={"Idempotency-Key": "patients"})
        for content in (image(1), image(1), image(1, PatientID="P-2", StudyInstanceUID="1.2.3"))
    )
    assert all(b"P-1" in answer.content for answer in (first, again))
    assert other.status_code == 422


def test_a_first_request_is_not_taken_for_work_of_an_earlier_process(
    serving: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    recover = Journal.recover

    def slow(self: Journal) -> int:
        time.sleep(0.2)
        return recover(self)

    monkeypatch.setattr(Journal, "recover", slow)
    assert serving().post("/v1/reports", files=images(png())).status_code == 200


def test_a_service_that_cannot_recover_its_studies_does_not_start(
    serving: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be ready and never report a study that waits, such as one received by DICOM."""

    def away(_: Journal) -> int:
        raise OSError("the database is restarting")

    monkeypatch.setattr(Journal, "recover", away)
    with pytest.raises(OSError, match="restarting"):
        serving()


def test_a_repeated_key_recovers_from_a_failure_of_the_service(service: TestClient, monkeypatch: Any) -> None:
    def ask() -> Any:
        return service.post("/v1/reports", files=images(png(1)), headers={"Idempotency-Key": "failure", **more})

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error")

    more = {"Prefer": "respond-async"}
    with monkeypatch.context() as patched:
        patched.setattr("crossray.serving.desk.answer_of", fail)
        first = f"/v1/reports/{ask().json()['id']}"
        answer = finished(service, first)
        assert (answer.status_code, answer.json()["detail"][:18]) == (500, "the service failed")
        more = {}
        assert ask().status_code == 500
    answer = ask()
    assert answer.status_code == 200
    assert ask().json() == answer.json()
    assert service.get(first).status_code == 500


def test_a_waiting_repetition_learns_of_a_failure_of_the_service(
    serving: Callable[..., TestClient], monkeypatch: Any
) -> None:
    """The second request comes while the first one's report is being written."""
    client = serving()
    waiting, going = threading.Event(), threading.Event()
    desk = client.app.state.desk  # type: ignore[attr-defined]
    finish = desk.finish

    async def noted(study: str) -> Any:
        waiting.set()
        return await finish(study)

    def fail(*_: Any, **__: Any) -> None:
        going.set()
        waiting.wait(30)
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(desk, "finish", noted)
    monkeypatch.setattr("crossray.serving.desk.answer_of", fail)
    answers: list[int] = []

    def ask() -> None:
        answer = client.post("/v1/reports", files=images(png(1)), headers={"Idempotency-Key": "k"})
        answers.append(answer.status_code)

    first = threading.Thread(target=ask)
    first.start()
    going.wait(30)
    ask()
    first.join()
    assert answers == [500, 500]


def test_a_reader_who_leaves_leaves_no_reason_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A reason can quote a value of a DICOM header; asyncio logs failures that nobody retrieves."""

    async def leave() -> None:
        going = asyncio.Event()

        async def refuse() -> Any:
            await going.wait()
            raise Problem(422, "image 1: WindowWidth is 'Doe^Jane', which is not a valid number.")

        task = asyncio.create_task(refuse())
        task.add_done_callback(lambda ended: ended.exception())  # as in the desk
        events = _events(cast("Desk", None), "study", task, asyncio.Queue(), False)
        assert "accepted" in await anext(events)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        going.set()
        await asyncio.wait([task])
        await asyncio.sleep(0)

    # in a thread of its own: a browser that an earlier test opened keeps a loop running in this one
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, leave()).result()
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelname == "ERROR"]


def test_words_come_while_they_are_written(service: TestClient) -> None:
    answer = service.post("/v1/reports", files=images(png()), headers={"Accept": "text/event-stream"})
    events = [dict(line.split(": ", 1) for line in event.splitlines()) for event in answer.text.strip().split("\n\n")]
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("accepted", "report")
    report = json.loads(events[-1]["data"])
    words = [json.loads(event["data"])["text"] for event in events if event["event"] == "words"]
    assert len(words) > 1
    assert all(report["text"].startswith(text[:-1]) for text in words)
    refused = service.post("/v1/reports", files=images(b"x"), headers={"Accept": "text/event-stream"})
    assert "event: problem" in refused.text


def test_models_stand_side_by_side(service: TestClient) -> None:
    models = service.get("/v1/models").json()["models"]
    assert [model["name"] for model in models] == ["a", "b"]
    answer = service.post("/v1/reports?model=b", files=images(png())).json()
    assert answer["model"]["name"] == "b"
    assert service.post("/v1/reports?model=c", files=images(png())).status_code == 404
    assert "not a medical device" in service.get("/v1/models/b/card").text


def test_health_metrics_page_and_description(service: TestClient) -> None:
    service.post("/v1/reports", files=images(png()))
    assert service.get("/healthz").status_code == 200
    assert service.get("/readyz").json()["status"] == "ready"
    assert "crossray_reported_total" in service.get("/metrics").text
    page = service.get("/")
    assert "'self'" in page.headers["content-security-policy"]
    description = service.get("/openapi.json").json()
    post = description["paths"]["/v1/reports"]["post"]
    assert "multipart/form-data" in post["requestBody"]["content"]
    example = post["responses"]["200"]["content"]["application/json"]["example"]
    answer = service.post("/v1/reports", files=images(png())).json()
    assert set(example) == set(answer)


def test_a_full_service_says_when_to_come_back(serving: Callable[..., TestClient], monkeypatch: Any) -> None:
    client = serving(limits=Limits(in_flight=1))
    going, go = threading.Event(), threading.Event()
    batcher = client.app.state.shelf.get("a").batcher  # type: ignore[attr-defined]
    write = batcher._write

    def slow(jobs: Any) -> None:
        going.set()
        go.wait(30)
        write(jobs)

    monkeypatch.setattr(batcher, "_write", slow)
    first = threading.Thread(target=lambda: client.post("/v1/reports", files=images(png())))
    first.start()
    going.wait(30)
    refused = client.post("/v1/reports", files=images(png()))
    assert client.get("/readyz").status_code == 503
    go.set()
    first.join()
    assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (429, True)
    assert client.post("/v1/reports", files=images(png())).status_code == 200


def test_limits_of_size_number_and_rate(serving: Callable[..., TestClient]) -> None:
    client = serving(limits=Limits(upload=20_000, files=2, rate=5))
    assert client.post("/v1/reports", files=images(png(size=(200, 200)))).status_code == 413
    chunks = iter([b"x" * 9_000] * 3)  # no Content-Length
    assert client.post("/v1/reports", content=chunks, headers={"Content-Type": "image/png"}).status_code == 413
    assert client.post("/v1/reports", files=images(*[png(size=(32, 32))] * 3)).status_code == 413
    assert client.post("/v1/reports", content=b"x", headers={"Content-Type": "text/csv"}).status_code == 415
    assert client.post("/v1/reports", files=images(png(size=(32, 32)))).status_code == 200
    limited = client.post("/v1/reports", files=images(png(size=(32, 32))))
    assert (limited.status_code, int(limited.headers["retry-after"]) >= 1) == (429, True)


def test_a_model_is_swapped_under_load(serving: Callable[..., TestClient], tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m")
    client = serving(models={"a": folder})
    old = client.get("/v1/models").json()["models"][0]
    answers: list[int] = []
    end = threading.Event()

    def ask(seed: int) -> None:
        while not end.is_set():
            answers.append(client.post("/v1/reports", files=images(png(seed))).status_code)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    save_model(folder, method="beam")
    for _ in range(3):
        assert client.post("/v1/models/a/reload").status_code == 200
    end.set()
    for thread in threads:
        thread.join()
    new = client.get("/v1/models").json()["models"][0]
    assert (old["decoding"], new["decoding"]) == ("greedy", "beam")
    assert set(answers) == {200}
    (folder / "config.json").write_text("{")
    assert client.post("/v1/models/a/reload").status_code == 409
    assert client.post("/v1/reports", files=images(png())).status_code == 200


def test_an_answer_names_the_model_that_wrote_it(
    serving: Callable[..., TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is loaded again while the report is being written."""
    folder = save_model(tmp_path / "m")
    client = serving(models={"a": folder})
    shelf = client.app.state.shelf  # type: ignore[attr-defined]
    submit = shelf.submit

    def swapped(name: str, job: Any) -> Any:
        taken = submit(name, job)
        shelf.reload(name)
        return taken

    monkeypatch.setattr(shelf, "submit", swapped)
    save_model(folder, system="cmn")
    assert client.post("/v1/reports", files=images(png())).json()["model"]["system"] == "baseline"
    assert client.get("/v1/models").json()["models"][0]["system"] == "cmn"


def test_flagged_images_are_marked_and_refused_when_strict(
    serving: Callable[..., TestClient], monkeypatch: Any
) -> None:
    from crossray.confidence.check import Flag, InputCheck

    client = serving()
    assert "no input check" in client.post("/v1/reports?strict=true", files=images(png())).json()["detail"]
    found = InputCheck((Flag("rotated", "The image lies on its side.", 0.9, 0.5, 0),))
    monkeypatch.setattr("crossray.generation.in_memory.checks_of", lambda _, pooled, __: [found] * len(pooled))
    answer = client.post("/v1/reports", files=images(png())).json()
    flags = [{"name": "rotated", "reason": "The image lies on its side.", "view": 0}]
    assert answer["input"] == {"checked": True, "flags": flags, "remarks": []}
    refused = client.post("/v1/reports?strict=true", files=images(png()))
    assert (refused.status_code, refused.json()["flags"]) == (422, flags)
    with pytest.raises(UserError, match="no input check"):
        serving(strict=True)


def test_nothing_is_kept_when_nothing_shall_be(serving: Callable[..., TestClient]) -> None:
    client = serving(keep=0)
    answer = client.post("/v1/reports", files=images(png())).json()
    client.app.state.journal.sweep(0)  # type: ignore[attr-defined]
    assert client.get(f"/v1/reports/{answer['id']}").status_code == 404


def test_what_was_accepted_before_a_restart_is_reported(
    serving: Callable[..., TestClient], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The second study's model is no longer served: the default one reports it."""
    from crossray.serving.entries import File
    from crossray.serving.journal import Journal

    journal = Journal(f"sqlite:///{tmp_path / 'j.db'}")
    entry, _ = journal.accept([File("0", png())], model="a", owner="local", origin="http", claim=True)
    gone, _ = journal.accept([File("0", png())], model="gone", owner="local", origin="http")
    client = serving()
    for study in (entry.id, gone.id):
        answer = finished(client, f"/v1/reports/{study}")
        assert (answer.json()["id"], answer.json()["model"]["name"]) == (study, "a")
    assert f"study {gone.id}: its model is no longer served; using the model a instead." in caplog.text


def test_a_study_by_dicom_that_fails_is_logged_and_noted(
    serving: Callable[..., TestClient], monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pydicom")
    from tests.interop.studies import image

    from crossray.serving.entries import File

    client = serving(quiet=0.0)
    journal = client.app.state.journal  # type: ignore[attr-defined]

    def failed(content: bytes) -> Any:
        study = journal.collect("1.2.3", File("1", content), model="a", owner="dicom:WARD", origin="dicom")
        wait(lambda: any(note["study"] == study for note in journal.notes()))
        return journal.entry(study)

    entry = failed(image(1, Modality="DOE JANE 1970"))
    assert entry.error.startswith("image 1: Modality is DOE JANE 1970")
    assert f"study {entry.id}: not reported; the journal says why" in caplog.text
    (note,) = journal.notes()
    assert (note["who"], note["action"], note["study"]) == ("dicom:WARD", "report", entry.id)
    assert note["outcome"] == "failed"
    assert "DOE" not in caplog.text + str(journal.notes())

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("Jane Doe has pneumonia")

    monkeypatch.setattr("crossray.serving.desk.answer_of", fail)
    entry = failed(png())
    assert entry.error.startswith("the service failed (ValueError)")
    assert f"study {entry.id}: not reported; the journal says why" in caplog.text
    assert "Jane" not in caplog.text


def test_a_journal_that_is_locked_for_a_while_loses_no_end(
    serving: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serving()
    journal = client.app.state.journal  # type: ignore[attr-defined]
    left = dict.fromkeys(("complete", "fail"), 2)

    def locked(name: str) -> Callable[..., Any]:
        ask = getattr(journal, name)

        def answer(*given: Any) -> Any:
            left[name] -= 1
            if left[name] >= 0:
                raise OSError("database is locked")
            return ask(*given)

        return answer

    for name in left:
        monkeypatch.setattr(journal, name, locked(name))
    assert client.post("/v1/reports", files=images(png())).status_code == 200
    assert client.post("/v1/reports", files=images(b"no image")).status_code == 422
    assert journal.counts() == {"done": 1, "failed": 1}


def test_pages_of_other_sites_are_refused(service: TestClient) -> None:
    answer = service.post("/v1/reports", files=images(png()), headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    for host, status in {"evil.example": 400, "[::1": 400, "": 400, "[::1]:8000": 200, "LOCALHOST:1": 200}.items():
        assert service.get("/healthz", headers={"Host": host}).status_code == status


def test_the_audit_trail_has_no_content(service: TestClient) -> None:
    answer = service.post("/v1/reports", files=images(png())).json()
    rows = service.get("/v1/audit").json()["rows"]
    row = next(row for row in rows if row["study"] == answer["id"])
    assert (row["who"], row["action"], row["outcome"]) == ("local", "POST /v1/reports", "200")
    assert set(row) == {"number", "time", "who", "action", "study", "outcome"}


def test_a_failure_says_nothing_of_the_patient(
    serving: Callable[..., TestClient], monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = serving()

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("Jane Doe has pneumonia")

    monkeypatch.setattr("crossray.serving.desk.answer_of", fail)
    answer = client.post("/v1/reports", files=images(png()))
    assert answer.status_code == 500
    assert "ValueError" in caplog.text
    for text in (answer.text, caplog.text, client.get("/metrics").text):
        assert "Jane" not in text
        assert "patient" not in text


def test_libraries_that_quote_values_are_not_heard(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    from crossray.serving.run import set_up_log

    names = ("highdicom.base", "pydicom", "pynetdicom.acse", "httpx")
    loggers = [logging.getLogger(name.split(".")[0]) for name in names]
    before = [logger.level for logger in loggers]
    try:
        set_up_log()
        for name in names:
            assert not logging.getLogger(name).isEnabledFor(logging.ERROR)
        assert logging.getLogger("crossray.serving").isEnabledFor(logging.INFO)
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
