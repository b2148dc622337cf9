"""Reports a second that the rule-based labeler labels on one core, and how time grows with the length of the text.

Real reports are the findings and impressions of IU X-Ray under `$CROSSRAY_TEST_DATA`; without them, made-up ones of
the same length. No sentence is cached.
"""

import csv
import os
import time
from pathlib import Path
from typing import Any

import torch

from common import median_seconds, parser, peak_memory_mb, report
from crossray.text.observations import LABELER, LABELER_VERSION, label_report, label_reports

MADE_UP = (
    "The heart is normal in size. The mediastinum is unremarkable. There is no pleural effusion, pneumothorax, or "
    "focal airspace disease. Degenerative changes are present in the spine. No acute cardiopulmonary abnormality. "
)


def real_reports() -> list[str]:
    """Findings and impression of every report of IU X-Ray that has text; empty without the data."""
    path = Path(os.environ.get("CROSSRAY_TEST_DATA", "../shared/data")) / "iu_xray" / "indiana_reports.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        texts = [f"{row['findings']}\n\n{row['impression']}" for row in csv.DictReader(file)]
    return [text for text in texts if text.strip()]


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--reports", type=int, default=3000, help="reports to label")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    reports = real_reports()
    kind = "IU X-Ray" if reports else "made-up"
    reports = (reports or [MADE_UP])[: chosen.reports]
    seconds = median_seconds(lambda: label_reports(reports))
    start = time.process_time()
    label_reports(reports)
    computing = time.process_time() - start  # what other processes take of the core does not count
    rows: list[dict[str, Any]] = [
        {
            "what": f"{len(reports)} {kind} reports",
            "words a report": sum(len(text.split()) for text in reports) / len(reports),
            "s": seconds,
            "reports/s": len(reports) / seconds,
            "reports/s of CPU time": len(reports) / computing,
            "peak memory MB": peak_memory_mb(),
        }
    ]
    for megabytes, name, piece in (
        (1, "report of sentences", MADE_UP),
        (2, "report of sentences", MADE_UP),
        (1, "report without a full stop", "no effusion or "),
        (2, "report without a full stop", "no effusion or "),
    ):
        text = (piece * (megabytes * 1_000_000 // len(piece) + 1))[: megabytes * 1_000_000]
        seconds = median_seconds(lambda text=text: label_report(text), at_least=0)
        rows.append({"what": f"one {name}, {megabytes} MB", "s": seconds, "MB/s": megabytes / seconds})
    report(f"{LABELER} {LABELER_VERSION}, one process", rows, json=chosen.json)


if __name__ == "__main__":
    main()
