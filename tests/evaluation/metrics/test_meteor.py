"""METEOR where Java is missing, fails, hangs or answers nonsense. A shell script stands in for Java."""

from pathlib import Path

import numpy as np
import pytest

from crossray.errors import UserError
from crossray.evaluation.metrics import meteor as module
from crossray.evaluation.metrics.meteor import jar_sha256, meteor, score_of_counts


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a script in Java's place."""

    def install(script: str | None) -> None:
        if script is not None:
            (tmp_path / "java").write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "java").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return install


def test_missing_java_is_a_sentence(java) -> None:
    java(None)
    with pytest.raises(UserError, match="no Java on the PATH"):
        meteor(["secret"], ["secret"])


def test_missing_wheel_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install"):
        meteor(["a"], ["a"])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "code 3"),
        ("exec /bin/sleep 60", "took more than"),
        ("echo hello", "lines of counts"),
        ("echo 1 2 3", "lines of counts"),
        ("true", "lines of counts"),
    ],
)
def test_a_failing_java_is_a_sentence_and_never_a_wait(java, script: str, message: str) -> None:
    java(script)
    with pytest.raises(UserError, match=message) as caught:
        meteor(["secret"], ["secret"], timeout=0.5)
    assert "secret" not in str(caught.value)


def test_every_pair_is_one_line_whatever_it_holds(java, tmp_path: Path) -> None:
    counts = " ".join(["1.0"] * 23)
    java(f'while read -r line; do echo "$line" >> {tmp_path}/lines; echo {counts}; done')
    found = meteor(["a\nb ||| c", "x", "a\nb ||| c"], ["r\u2028s", "", "r\u2028s"])
    assert len(found) == 3
    assert (tmp_path / "lines").read_text() == "SCORE ||| r s ||| a b c\nSCORE |||  ||| x\n"


def test_score_of_hand_counted_matches() -> None:
    # Two words on both sides, no function word, both exact matches in two chunks:
    # P = R = F = 1 and the penalty is 0.6 * (2 / 2) ** 0.2.
    counts = np.zeros(23)
    counts[[0, 1, 4, 5, 20, 21, 22]] = 2
    assert score_of_counts(counts) == pytest.approx(0.4)
    assert score_of_counts(np.zeros((3, 23))) == pytest.approx([0, 0, 0])


def test_the_jar_is_the_known_one() -> None:
    assert jar_sha256() == "1e57b4c72c0830ebe68558f1c799a624e96cbc1b6045c9f6330e26dcff6eafc2"
