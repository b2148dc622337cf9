"""Two processes, on one machine or on two, equal one process on the same global batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from crossray.training.recipe import to_yaml
from crossray.training.run import train

OPTIONS: dict[str, Any] = {
    # neither batch statistics nor dropout
    "model__backbone__name": "random:vit_tiny", "model__dropout": 0.0, "model__visual_dropout": 0.0,
    "data__image__size": 32, "trainer__threads": 1, "trainer__max_epochs": 1, "trainer__clip_norm": 1.0,
    # a key's bias has no gradient but rounding, which a smaller eps would turn into full steps
    "optimizer__eps": 1e-6,
}  # fmt: skip


SCRIPT = """\
import sys
from pathlib import Path
from crossray.training.recipe import load
from crossray.training.run import train
if __name__ == "__main__":
    train(load(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
"""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def one(tiny: Any, blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("one") / "run"
    train(tiny(**OPTIONS, data__batch_size=4), blobs, out)
    return out


def two(folder: Path, recipe: Any) -> tuple[str, str]:
    """Script and recipe of a run of two processes, as files."""
    (folder / "two.yaml").write_text(to_yaml(recipe))
    (folder / "two.py").write_text(SCRIPT)
    return str(folder / "two.py"), str(folder / "two.yaml")


def assert_equal(left: Path, right: Path) -> None:
    """Weights and scores of two runs."""
    one, two = (torch.load(run / "last.ckpt", weights_only=True) for run in (left, right))
    assert one["step"] == two["step"] == 5
    for name, tensor in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], tensor, rtol=1e-3, atol=2e-5, msg=name)
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (left, right)]
    for one_row, two_row in zip(*([row for row in run if row["split"] == "val"] for run in rows), strict=True):
        for name in ("loss", "bleu1", "rouge_l", "distinct"):
            assert two_row[name] == pytest.approx(one_row[name], rel=1e-3), name


@pytest.mark.slow
def test_two_processes_equal_one(one: Path, tiny: Any, blobs: Path, tmp_path: Path) -> None:
    script, recipe = two(tmp_path, tiny(**OPTIONS, data__batch_size=2, trainer__devices=2))
    command = [sys.executable, script, recipe, str(blobs), str(tmp_path / "run")]
    ended = subprocess.run(command, capture_output=True, env=ONE_THREAD, timeout=240)
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]
    assert_equal(one, tmp_path / "run")


@pytest.mark.slow
def test_two_nodes_equal_one_process(one: Path, tiny: Any, blobs: Path, tmp_path: Path) -> None:
    """Two launchers of torchrun, each with a process, stand for two machines that share a disk."""
    script, recipe = two(tmp_path, tiny(**OPTIONS, data__batch_size=2, trainer__nodes=2))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--node-rank",
                str(rank), "--master-addr", "127.0.0.1", "--master-port", str(port), script, recipe, str(blobs),
                str(tmp_path / "run"),
            ],
            stdout=subprocess.DEVNULL, stderr=(tmp_path / f"node{rank}.log").open("wb"), env=ONE_THREAD,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        codes = [node.wait(timeout=240) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert codes == [0, 0], "".join((tmp_path / f"node{rank}.log").read_text()[-2000:] for rank in (0, 1))
    assert_equal(one, tmp_path / "run")
