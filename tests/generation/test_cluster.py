"""`crossray generate --engine ray`: the predictions file of one process, written by the workers of a cluster."""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from crossray import cli
from crossray.errors import UserError
from crossray.generation import cluster
from crossray.generation.cluster import generate_on_ray
from crossray.generation.generator import Generator


def without_seconds(path: Path) -> bytes:
    """The file's bytes, without the measured times."""
    content, count = re.subn(rb'"seconds": [0-9.e-]+', b"", path.read_bytes())
    assert count == 5
    return content


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A cluster of three simulated machines: one that only manages it, and two with one CPU.

    Its dozen processes would exceed Ray's time limits beside other tests, so `make test-cluster` starts it on its own.
    """
    pytest.importorskip("ray.data")
    if not os.environ.get("CROSSRAY_TEST_CLUSTER"):
        pytest.skip("starts three Ray machines: make test-cluster")
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        machines.add_node(num_cpus=1)
    yield machines
    machines.shutdown()


@pytest.fixture
def connected(machines: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same cluster, which RAY_ADDRESS names."""
    monkeypatch.setenv("RAY_ADDRESS", machines.address)
    return machines


def wrapper(call: Callable[[Any, Any], Any]) -> type:
    """A class to put in place of `cluster.Worker`; in a worker's process, which gets it pickled, it wraps the real one.

    Args:
        call: called with the real worker and the index of a batch's first study.
    """

    class Wrapper:  # a local class is pickled by value: the workers need not import this module
        def __init__(self, job):
            from crossray.generation.cluster import Worker

            self.worker = Worker(job)

        def __call__(self, first):
            return call(self.worker, first)

    return Wrapper


@pytest.mark.slow
@pytest.mark.usefixtures("own_ray")
@pytest.mark.parametrize("shuffled", [[], ["--shuffle-images", "1"]])
def test_the_command_writes_the_same_bytes_as_one_process(folder, data, tmp_path, shuffled):
    """On its own cluster, which is gone afterwards; the last batch is smaller, and results arrive out of order."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data", reason="needs pandas")
    command = ["generate", "--model", str(folder), "--data", str(data / "prepared"), "--batch-size", "2", *shuffled]
    cli.main([*command, "--out", str(tmp_path / "one.jsonl"), "--device", "cpu"])
    engine = ["--engine", "ray", "--devices", "2", "--device", "cpu"]
    cli.main([*command, "--out", str(tmp_path / "ray.jsonl"), *engine])
    assert without_seconds(tmp_path / "ray.jsonl") == without_seconds(tmp_path / "one.jsonl")
    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.usefixtures("connected")
def test_a_lost_worker_loses_nothing(folder, data, tmp_path, monkeypatch):
    """The process ends within its batch, once; the other worker finishes later batches meanwhile."""
    marker = tmp_path / "died"

    def die_once(worker, first):
        if first == 1 and not marker.exists():
            marker.touch()
            os._exit(1)
        return worker(first)

    monkeypatch.setattr(cluster, "Worker", wrapper(die_once))
    generator, seen = Generator.from_pretrained(folder, device="cpu"), []
    generator.generate_dataset(data / "prepared", "test", tmp_path / "one.jsonl", batch_size=1)
    count = generate_on_ray(
        generator, data / "prepared", "test", tmp_path / "ray.jsonl", batch_size=1,
        progress=lambda *counts: seen.append(counts),
    )  # fmt: skip
    assert marker.exists()
    assert count == 5
    assert seen == [(number, 5) for number in range(1, 6)]
    assert without_seconds(tmp_path / "ray.jsonl") == without_seconds(tmp_path / "one.jsonl")


@pytest.mark.slow
@pytest.mark.usefixtures("connected")
def test_a_worker_halves_a_batch_and_its_errors_reach_the_user(folder, data, tmp_path, monkeypatch):
    generator = Generator.from_pretrained(folder, device="cpu")
    generator.generate_dataset(data / "prepared", "test", tmp_path / "one.jsonl", batch_size=2)

    def limited(limit: int) -> type:
        def call(worker, first):
            model = type(worker.reports.generator.model)
            encode = model.encode

            def run(self, inputs, guide=None):
                if inputs.size > limit:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return encode(self, inputs, guide)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(model, "encode", run)
                return worker(first)

        return wrapper(call)

    monkeypatch.setattr(cluster, "Worker", limited(2))
    generate_on_ray(generator, data / "prepared", "test", tmp_path / "halved.jsonl", batch_size=5, devices=1)
    assert without_seconds(tmp_path / "halved.jsonl") == without_seconds(tmp_path / "one.jsonl")

    monkeypatch.setattr(cluster, "Worker", limited(0))
    out = tmp_path / "none.jsonl"
    out.write_text("old\n")
    with pytest.raises(UserError, match=r"^study 'study0': there is not enough memory for even one study"):
        # one worker: the first of several to fail could be that of a later batch
        generate_on_ray(generator, data / "prepared", "test", out, batch_size=2, devices=1)

    def broken(worker, first):
        raise ValueError("shapes do not fit")

    monkeypatch.setattr(cluster, "Worker", wrapper(broken))
    with pytest.raises(Exception, match="shapes do not fit") as raised:
        generate_on_ray(generator, data / "prepared", "test", out, batch_size=2)
    assert not isinstance(raised.value, UserError)
    assert out.read_text() == "old\n"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_a_lost_machine_loses_nothing(folder, data, tmp_path, monkeypatch, connected):
    """The machine of the second batch is killed meanwhile; its worker gets the CPU of the other one."""
    marker = tmp_path / "machine"

    def hang_once(worker, first):
        if first == 1 and not marker.exists():
            import ray

            marker.write_text(ray.get_runtime_context().get_node_id())
            time.sleep(600)
        return worker(first)

    def kill() -> None:
        while not (marker.exists() and (name := marker.read_text())):
            time.sleep(0.1)
        (lost,) = (node for node in connected.list_all_nodes() if node.node_id == name)
        connected.remove_node(lost, allow_graceful=False)

    monkeypatch.setattr(cluster, "Worker", wrapper(hang_once))
    generator = Generator.from_pretrained(folder, device="cpu")
    generator.generate_dataset(data / "prepared", "test", tmp_path / "one.jsonl", batch_size=1)
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    assert generate_on_ray(generator, data / "prepared", "test", tmp_path / "ray.jsonl", batch_size=1) == 5
    thread.join()
    assert len(connected.list_all_nodes()) == 2
    assert without_seconds(tmp_path / "ray.jsonl") == without_seconds(tmp_path / "one.jsonl")


def test_options_that_do_not_fit(folder, data, tmp_path, capsys):
    dataset = ["--data", str(data / "prepared"), "--out", str(tmp_path / "out.jsonl")]
    for options, message in (
        ([*dataset, "--devices", "2"], "--devices needs --engine ray"),
        ([*dataset, "--devices", "0", "--engine", "ray"], "--devices"),
        ([str(data / "0-0.png"), "--engine", "ray"], "--engine ray needs --data"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["generate", "--model", str(folder), *options])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["ray", "pandas"])
def test_a_missing_package_is_named(folder, data, tmp_path, monkeypatch, missing):
    pytest.importorskip("ray")
    for name in [name for name in sys.modules if name == "ray.data" or name.startswith("ray.data.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    generator = Generator.from_pretrained(folder, device="cpu")
    with pytest.raises(UserError, match=rf"needs the package {missing}; pip install 'crossray\[ray\]'"):
        generate_on_ray(generator, data / "prepared", "test", tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_without_a_cluster_is_refused_at_once(folder, data, tmp_path, monkeypatch, address):
    """Ray itself would wait for minutes."""
    pytest.importorskip("ray.data")
    monkeypatch.setenv("RAY_ADDRESS", address)
    generator = Generator.from_pretrained(folder, device="cpu")
    with pytest.raises(UserError, match=f"^RAY_ADDRESS {address}: no cluster answers"):
        generate_on_ray(generator, data / "prepared", "test", tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())
