"""What long work says without a terminal."""

import io

import pytest
from rich.console import Console

from crossray.training import heartbeat
from crossray.training.heartbeat import Heartbeat, duration


@pytest.mark.parametrize("terminal", [True, False])
def test_a_line_a_minute(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now)
    text = io.StringIO()
    beat = Heartbeat("drawing", Console(file=text, force_terminal=terminal, width=200))
    for done in range(100, 201):  # continued at 100 of 400, ten a minute
        beat(done, 400)
        now += 6.0
    beat.end()
    lines = text.getvalue().splitlines()
    if terminal:
        assert lines == []
        return
    assert len(lines) == 11
    assert lines[0].endswith("drawing: 110 of 400 (28%), about 29 min left")
    assert lines[-1].endswith("drawing: finished after 10 min")


def test_short_work_says_nothing() -> None:
    text = io.StringIO()
    beat = Heartbeat("drawing", Console(file=text))
    beat(1, 2)
    beat.end()
    assert text.getvalue() == ""
    assert [duration(seconds) for seconds in (5, 100, 11100)] == ["5 s", "2 min", "3 h 05 min"]
