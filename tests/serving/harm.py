"""What a file may do to the process that decodes it; this module imports nothing heavy, because that process does."""

import os
import signal
import time
from typing import Any


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(*_: Any) -> None:
    time.sleep(60)


def process(*_: Any) -> int:
    return os.getpid()
