"""A labeler for tests: a sentence of the made-up reports states an observation by one word."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossray.text.observations import CHEXPERT, STATUSES

WORDS = {
    "enlarged": ("cardiomegaly", "positive"),
    "opacity": ("lung_opacity", "positive"),
    "stable": ("edema", "uncertain"),
    "clear": ("pleural_effusion", "negative"),
    "device": ("support_devices", "positive"),
}


class KeywordLabeler:
    """Counts what it is given, so that a test sees what was labeled twice."""

    name = "keywords 1"
    observations = ("aorta_abnormal", *reversed(CHEXPERT))

    def __init__(self) -> None:
        self.seen: list[str] = []

    def label(self, reports: Sequence[str]) -> NDArray[np.int8]:
        self.seen.extend(reports)
        codes = np.zeros((len(reports), len(self.observations)), dtype=np.int8)
        for line, report in zip(codes, reports, strict=True):
            for word, (observation, status) in WORDS.items():
                if word in report.split():
                    line[self.observations.index(observation)] = STATUSES.index(status)
            if not (line == STATUSES.index("positive")).any():
                line[self.observations.index("no_finding")] = STATUSES.index("positive")
        return codes
