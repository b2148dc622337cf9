"""Two processes equal one process on the same global batch."""

import json
import os
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


@pytest.mark.slow
def test_two_processes_equal_one(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    train(tiny(**OPTIONS, data__batch_size=4), blobs, tmp_path / "one")
    (tmp_path / "two.yaml").write_text(to_yaml(tiny(**OPTIONS, data__batch_size=2, trainer__devices=2)))
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from crossray.training.recipe import load\n"
        "from crossray.training.run import train\n"
        "if __name__ == '__main__':\n"
        "    train(load(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "two.yaml"), str(blobs), str(tmp_path / "two")]
    ended = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=240)
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]

    one, two = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("one", "two"))
    assert one["step"] == two["step"] == 5
    for name, tensor in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], tensor, rtol=1e-3, atol=2e-5, msg=name)

    rows = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
            for name in ("one", "two")]  # fmt: skip
    for left, right in zip(*([row for row in run if row["split"] == "val"] for run in rows), strict=True):
        for name in ("loss", "bleu1", "rouge_l", "distinct"):
            assert right[name] == pytest.approx(left[name], rel=1e-3), name
