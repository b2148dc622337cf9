"""Prints the progress of long tasks without a terminal (nohup, cluster jobs): one line per minute."""

import time

from rich.console import Console

#: Seconds between two lines.
EVERY = 60.0


class Heartbeat:
    """A callback `beat(done, total)` that prints the progress and the remaining time.

    It prints nothing on a terminal, where bars are shown, nor for tasks that take less than `every` seconds.

    Args:
        title: name of the task.
        console: console to print to.
        every: number of seconds between two lines.
    """

    def __init__(self, title: str, console: Console, every: float = EVERY) -> None:
        self.title, self.console, self.every = title, console, every
        self._start = self._last = time.monotonic()
        self._first: int | None = None
        self._said = False

    def __call__(self, done: int, total: int, detail: str = "") -> None:
        """Report that `done` of `total` items are finished."""
        now = time.monotonic()
        if self._first is None:  # a resumed task did not start at 0
            self._first, self._start = done, now
        if self.console.is_terminal or now - self._last < self.every:
            return
        self._last, self._said = now, True
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = f", about {duration((total - done) / rate)} left" if rate > 0 else ""
        self._print(f"{done} of {total} ({done / max(total, 1):.0%}){left}{'  ' + detail if detail else ''}")

    def end(self) -> None:
        """Print the duration of the finished task, if its progress was printed."""
        if self._said:
            self._print(f"finished after {duration(time.monotonic() - self._start)}")

    def _print(self, text: str) -> None:
        self.console.print(f"{time.strftime('%H:%M:%S')} {self.title}: {text}", soft_wrap=True, highlight=False)


def duration(seconds: float) -> str:
    """Format a duration for people.

    Example:
        >>> duration(45), duration(725), duration(11100)
        ('45 s', '12 min', '3 h 05 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
