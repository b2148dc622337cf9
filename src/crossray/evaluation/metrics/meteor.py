"""METEOR 1.5, computed by its Java program, the jar in the `pycocoevalcap` wheel (docs/evaluation.md).

Other implementations of METEOR give different numbers (up to 0.3 apart on the same reports), so the score is named
after the jar. The jar aligns each pair and prints the number of matches. The last step, from these counts to a score,
is computed here, so bootstrap resamples do not need Java.

Source of the formula: M. Denkowski and A. Lavie, "Meteor Universal", WMT 2014, with the English parameters.
"""

import hashlib
import importlib.util
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError
from crossray.evaluation.metrics.family import (
    Family,
    FamilyStatistics,
    Metric,
    NotComputedError,
    Reports,
    Setting,
    register,
)

#: Name of the score in every result.
METRIC = "meteor_1.5_jar"

# English task parameters of METEOR 1.5 ("-l en"): weight of recall, exponent and weight of the fragmentation penalty,
# weight of content words against function words, and weights of exact, stem, synonym and paraphrase matches.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])

# A line of counts: lengths and function words of both sides, four counts for each matcher, chunks, and matched words.
_COLUMNS = 23
_START_SECONDS = 120.0
_SECONDS_A_PAIR = 0.1


@dataclass(frozen=True)
class MeteorStatistics:
    """The counts of the jar for N studies.

    Attributes:
        counts: (N, 23) numbers of the jar, in its order; 0 chunks if a report matches its whole reference.
    """

    counts: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.counts)

    def score(self) -> float:
        """The score of all studies together, between 0 and 1."""
        return float(self.weighted_scores(np.ones((1, len(self))))[METRIC][0])

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Scores of R resamples.

        Args:
            weights: (R, N) how often each study occurs in each resample.

        Returns:
            `METRIC` to (R,) scores.
        """
        return {METRIC: score_of_counts(np.asarray(weights, dtype=np.float64) @ self.counts)}

    def part(self, studies: NDArray[np.integer] | NDArray[np.bool_]) -> "MeteorStatistics":
        """Statistics of some of the studies, by index or mask."""
        return MeteorStatistics(self.counts[studies])


def meteor(hypotheses: Sequence[str], references: Sequence[str], *, timeout: float | None = None) -> MeteorStatistics:
    """Align generated with true reports by the jar.

    Args:
        hypotheses: N generated reports.
        references: N true reports.
        timeout: seconds after which Java is stopped; if None, it depends on N.

    Returns:
        The counts of every study; equal pairs are aligned only once.

    Raises:
        UserError: Java or the wheel is missing, or Java failed or took too long.
    """
    lines = [_line(ours, theirs) for ours, theirs in zip(hypotheses, references, strict=True)]
    distinct = {line: position for position, line in enumerate(dict.fromkeys(lines))}
    allowed = timeout if timeout is not None else _START_SECONDS + _SECONDS_A_PAIR * len(distinct)
    printed = _run_jar("".join(distinct), allowed).splitlines()
    try:
        counts = np.array([[float(number) for number in line.split()] for line in printed], dtype=np.float64)
        counts = counts.reshape(len(distinct), _COLUMNS)
    except ValueError:
        raise UserError(
            f"METEOR: the jar printed {len(printed)} lines of counts for {len(distinct)} pairs; "
            "install pycocoevalcap 1.2 again, or evaluate without METEOR"
        ) from None
    # A report that matches its whole reference has no fragments, alone and in every sum.
    whole = (counts[:, 20] == 1) & (counts[:, 21:23] == counts[:, 0:2]).all(axis=1)
    counts[whole, 20] = 0
    return MeteorStatistics(counts[[distinct[line] for line in lines]])


def score_of_counts(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """METEOR from summed counts.

    Args:
        counts: (..., 23) the jar's numbers, summed over studies.

    Returns:
        (...) scores.
    """
    length, function = counts[..., 0:2], counts[..., 2:4]
    # (..., matcher, content or function, hypothesis or reference)
    matches = counts[..., 4:20].reshape(*counts.shape[:-1], 4, 2, 2)
    weighted = _DELTA * matches[..., 0, :] + (1 - _DELTA) * matches[..., 1, :]
    matched = (weighted * _MATCHERS[:, None]).sum(axis=-2)
    possible = _DELTA * (length - function) + (1 - _DELTA) * function
    precision, recall = np.moveaxis(_ratio(matched, possible), -1, 0)
    mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    chunks, words = counts[..., 20], counts[..., 21:23]
    fragmentation = _ratio(chunks, words.mean(axis=-1))
    return np.asarray(mean * (1 - _GAMMA * fragmentation**_BETA))


@cache
def jar_sha256() -> str:
    """SHA-256 of the jar, which belongs to the protocol of the score.

    Raises:
        UserError: the wheel is missing.
    """
    return hashlib.sha256(_jar().read_bytes()).hexdigest()


@register("meteor")
class Meteor(Family):
    """METEOR 1.5 of its jar."""

    metrics = (Metric(METRIC, "METEOR 1.5 (jar)", 6),)

    def measure(self, reports: Sequence[Reports], setting: Setting) -> list[FamilyStatistics]:
        """Counts of all lists, with a single start of Java, which takes seconds.

        Raises:
            UserError: METEOR is required and cannot be computed.
        """
        if setting.meteor == "no":
            raise NotComputedError(f"{METRIC} not computed: left out on request")
        try:
            everything = meteor(
                [report for hypotheses, _ in reports for report in hypotheses],
                [report for _, references in reports for report in references],
            )
        except UserError as error:
            if setting.meteor == "yes":
                raise
            raise NotComputedError(f"{METRIC} not computed: {error}") from None
        return [everything.part(part) for part in np.split(np.arange(len(everything)), len(reports))]

    def implementation(self) -> str:
        """Digest of the jar."""
        return jar_sha256()


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _jar() -> Path:
    package = importlib.util.find_spec("pycocoevalcap")
    folders: Iterable[str] = (package.submodule_search_locations or ()) if package else ()
    for folder in folders:
        jar = Path(folder) / "meteor" / "meteor-1.5.jar"
        if jar.is_file():
            return jar
    raise UserError('METEOR: meteor-1.5.jar is missing; install it with: pip install "crossray[metrics]"')


def _line(hypothesis: str, reference: str) -> str:
    """The jar's input for one pair, without separators and line ends, which would shift all following answers."""
    ours, theirs = (" ".join(text.replace("|||", "").split()) for text in (hypothesis, reference))
    return f"SCORE ||| {theirs} ||| {ours}\n"


def _run_jar(lines: str, timeout: float) -> str:
    jar = _jar()
    java = shutil.which("java")
    if java is None:
        raise UserError("METEOR: no Java on the PATH; install a Java runtime (Debian: default-jre-headless)")
    command = [java, "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    try:
        # Java's error message may quote a report, so it is not passed on.
        finished = subprocess.run(
            command,
            input=lines.encode(errors="replace"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=True,
            cwd=jar.parent,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"METEOR: Java took more than {timeout:.0f} s and was stopped; evaluate without METEOR"
        ) from None
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"METEOR: Java ended with code {error.returncode}; it needs 2 GB of memory and Java 8 or later"
        ) from None
    except OSError as error:
        raise UserError(f"METEOR: Java could not be started ({error.strerror}); install a Java runtime") from None
    return finished.stdout.decode(errors="replace")
