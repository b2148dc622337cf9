"""Long fuzzing from the command line.

    python -m tests.fuzz [--count 2000] [--first 0] [--reasons] [png jpeg dicom csv annotation chexbert ...]

Every mutation has a number; the same number is the same file everywhere. Ends with code 1 if anything but a clear
rejection or an image came out.
"""

import argparse
import sys

from tests.fuzz.inputs import FORMATS
from tests.fuzz.run import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Read damaged files, many of them.")
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"of {', '.join(FORMATS)}; all when left out")
    parser.add_argument("--count", type=int, default=2000, help="mutations of each format (2000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation (0)")
    parser.add_argument("--reasons", action="store_true", help="print how often each kind of rejection occurred")
    arguments = parser.parse_args()
    if unknown := set(arguments.formats) - set(FORMATS):
        parser.error(f"no format {', '.join(sorted(unknown))}; choose of {', '.join(FORMATS)}")
    faults: list[str] = []
    for name in arguments.formats or FORMATS:
        outcome = fuzz(name, arguments.count, arguments.first)
        print(  # noqa: T201
            f"{name:12}{outcome.accepted:7} accepted {outcome.rejected:7} rejected {len(outcome.faults):4} faults   "
            f"slowest {outcome.slowest:.2f} s   memory {outcome.memory / 1e6:.0f} MB",
            flush=True,
        )
        if arguments.reasons:
            for reason, times in outcome.reasons.most_common():
                print(f"{times:9} {reason}")  # noqa: T201
        faults += outcome.faults
    print(*faults, sep="\n", end="\n" if faults else "")  # noqa: T201
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
