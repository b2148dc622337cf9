"""How often the rule-based labeler finds each observation in the reports of R2Gen's annotation file, as Markdown.

Reads `iu_xray/annotation.json` under `$CROSSRAY_TEST_DATA`, or the file that is given; counts only are printed.
"""

import argparse
import os
from pathlib import Path

from crossray.data.sources.r2gen import read_annotation
from crossray.text.observations import LABELER, LABELER_VERSION, OBSERVATIONS, STATUSES, label_reports

#: Order of the columns of a split; the other reports are blank.
COLUMNS = ("positive", "uncertain", "negative")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("CROSSRAY_TEST_DATA", "../shared/data")) / "iu_xray" / "annotation.json"
    parser.add_argument("annotation", nargs="?", type=Path, default=default, help="R2Gen's annotation.json")
    annotation = read_annotation(parser.parse_args().annotation)
    codes = {split: label_reports([entry["report"] for entry in entries]) for split, entries in annotation.items()}

    names = [f"{split} {status}" for split in codes for status in COLUMNS]
    print(f"{LABELER} {LABELER_VERSION}; reports: {', '.join(f'{split} {len(c)}' for split, c in codes.items())}\n")
    print(f"| observation | {' | '.join(names)} |")
    print(f"|---|{'---:|' * len(names)}")
    for column, observation in enumerate(OBSERVATIONS):
        counts = [
            int((labels[:, column] == STATUSES.index(status)).sum()) for labels in codes.values() for status in COLUMNS
        ]
        print(f"| {observation} | {' | '.join(map(str, counts))} |")


if __name__ == "__main__":
    main()
