"""What the rescue of damaged and unusual inputs costs: section parser and readers of images, now and before.

    python benchmarks/inputs.py --before REVISION

Unpacks the sources of the revision with `git archive`, runs the same inputs through both in turn, each time in a new
process, and prints processor time and ratio. Inputs are made up: a report, and a noisy picture as PNG of 8 and 16 bits
and as JPEG.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 3

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old with cough // pneumonia?

 TECHNIQUE:  Chest PA and lateral

 FINDINGS:

 The lungs are clear.  Heart size is normal: no change.  There is no
 pleural effusion or pneumothorax.
 Degenerative changes of the spine.

 IMPRESSION:

 1. No acute disease.
 2. Stable granuloma.
"""


def measure() -> dict[str, float]:
    """Processor time of each kind of input with the package that is on the path, in milliseconds an input."""
    import numpy as np
    from PIL import Image

    from crossray.data.images import read_image
    from crossray.data.sources.sections import split_sections

    def timed(run: Callable[[], object], times: int) -> float:
        run()
        start = time.process_time()
        for _ in range(times):
            run()
        return (time.process_time() - start) / times * 1000

    def encoded(pixels: object, kind: str) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)  # type: ignore[arg-type]
        return stream.getvalue()

    noise = np.random.default_rng(0).normal(0, 20, (1024, 1024))
    grey = np.clip(np.linspace(40, 200, 1024)[:, None] + noise, 0, 255).astype(np.uint8)
    found = {"report of 60 words, sections": timed(lambda: split_sections(REPORT), 300)}
    for name, content in (
        ("PNG 1024 x 1024, 8 bits", encoded(grey, "PNG")),
        ("PNG 1024 x 1024, 16 bits", encoded(grey.astype(np.uint16) * 16, "PNG")),
        ("JPEG 1024 x 1024", encoded(grey, "JPEG")),
    ):
        found[name] = timed(lambda content=content: read_image(content, "image"), 8)  # type: ignore[misc]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="REVISION", help="commit to compare with")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure()))
        return
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        trees = {"now": root / "src"}
        if chosen.before:
            archive = subprocess.run(
                ["git", "archive", chosen.before, "src"], cwd=root, check=True, capture_output=True
            ).stdout
            subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
            trees = {"before": Path(folder) / "src"} | trees
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
        for _ in range(ROUNDS):
            for name, tree in trees.items():
                done = subprocess.run(
                    [sys.executable, __file__, "--measure"],
                    env={**os.environ, "PYTHONPATH": str(tree)}, check=True, capture_output=True, text=True,
                )  # fmt: skip
                runs[name].append(json.loads(done.stdout))
    for kind in runs["now"][0]:
        values = {name: statistics.median(run[kind] for run in of_tree) for name, of_tree in runs.items()}
        ratio = f"   ratio {values['now'] / values['before']:.2f}" if "before" in values else ""
        print(f"{kind:32}" + "".join(f"   {name} {value:7.2f} ms" for name, value in values.items()) + ratio)


if __name__ == "__main__":
    main()
