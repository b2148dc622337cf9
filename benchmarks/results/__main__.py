"""Trains the systems over one encoder, scores them, and writes the result tables as Markdown: resumable, or one by one.

    python benchmarks/results --data data/iu --runs runs/results [--tables eye main ablation ...] [--seeds 0 1 2]

What a table needs and is there already is kept; an interrupted training goes on where it was. A table whose runs are
not all there is written with those that are, and says which seeds it holds. `make results` is the same command.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import analyses
import decodings
import eye
import main_table
import rewards
import shift
from steps import Bench

#: Name of a table's file to what writes its body; in the order in which they are made.
TABLES: dict[str, Callable[[Bench], str]] = {
    "eye": eye.table,
    "main": main_table.table,
    "decoding": decodings.table,
    "reward": rewards.table,
    "long-tail": analyses.long_tail,
    "alignment": analyses.alignment,
    "retrieval": analyses.retrieval,
    "cost": analyses.cost,
    "ablation": analyses.ablation,
    "shift": shift.table,
}


def main() -> None:
    """Make the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared dataset")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the training runs")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of the tables")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES), help="which tables to make")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="split that is scored")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of every system")
    parser.add_argument(
        "--systems",
        nargs="+",
        default=["baseline", "cmn", "rcan", "coacl", "uar", "revtaf", "union"],
        help="systems to train",
    )
    parser.add_argument("--external", type=Path, help="folder with images of other hospitals, for table shift")
    parser.add_argument("--most", type=int, default=0, help="most images of each hospital, for table shift; 0: all")
    parser.add_argument("--epochs-share", type=float, default=1.0, help="share of the recipes' epochs that is trained")
    chosen = parser.parse_args()
    bench = Bench(
        chosen.data.resolve(),
        chosen.runs.resolve(),
        chosen.split,
        tuple(chosen.seeds),
        tuple(chosen.systems),
        external=chosen.external,
        share=chosen.epochs_share,
        most=chosen.most,
    )
    bench.runs.mkdir(parents=True, exist_ok=True)
    for name in chosen.tables:
        body = TABLES[name](bench)
        command = f"python benchmarks/results --data data/iu --runs runs/results --tables {name}"
        command += f" --split {bench.split} \\\n        --seeds {' '.join(map(str, bench.seeds))}"
        if name != "eye":
            command += f" --systems {' '.join(bench.systems)}"
        if bench.share != 1:
            command += f" --epochs-share {bench.share}"
        if name == "shift":
            command += " --external shared/data" + (f" --most {bench.most}" if bench.most else "")
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / f"{name}.md").write_text(f"{body.rstrip()}\n\n    {command}\n", encoding="utf-8")
        print(f"{chosen.out / name}.md written", flush=True)


if __name__ == "__main__":
    main()
