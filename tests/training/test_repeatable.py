"""Two processes train the same weights, bit for bit, although Python orders sets of strings differently in each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_TRAIN = """
import hashlib, sys
from crossray.ablation.liveness import draw_studies, newborn
from pathlib import Path

subject = newborn(sys.argv[1], draw_studies(Path(sys.argv[2]), 16))
subject.train(3)
tensors = [tensor.numpy().tobytes() for _, tensor in sorted(subject.model.state_dict().items())]
print(hashlib.sha256(b"".join(tensors)).hexdigest())
"""


# revtaf reads a knowledge encoder and a vision encoder, uar an image tokenizer; both are trained here too
@pytest.mark.parametrize("recipe", ["revtaf/phantom", "uar/phantom"])
def test_processes_agree_bit_for_bit(recipe: str, tmp_path: Path) -> None:
    found = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", _TRAIN, recipe, str(tmp_path / seed)], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.add(done.stdout.splitlines()[-1])
    assert len(found) == 1
