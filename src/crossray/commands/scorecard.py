"""`crossray scorecard`: a page with the scores and reports of systems."""

from pathlib import Path

from crossray.errors import UserError, counted
from crossray.pages.terminal import console


def scorecard(runs: list[Path], out: Path, data: Path | None = None, studies: int = 24, seed: int = 0) -> None:
    """Write an HTML page with scores, training curves and annotated reports of one or more systems.

    Args:
        runs: predictions files, or folders of runs with predictions.jsonl.
        out: HTML file to write.
        data: prepared dataset with the images and true reports; by default, the one that the predictions name.
        studies: number of studies to show: a third of the best, a third of the worst, the rest at random.
        seed: random seed for selecting the studies.
    """
    from crossray.data.store import Dataset
    from crossray.files.write import write_whole
    from crossray.pages.scorecard.build import build_scorecard
    from crossray.pages.scorecard.runs import read_systems

    if studies < 0:
        raise UserError(f"--studies {studies}: give 0 or more.")
    dataset = None if data is None else Dataset.open(data)
    systems = read_systems(runs, data=dataset, say=lambda sentence: console().print(sentence, highlight=False))
    write_whole(out, build_scorecard(systems, data=dataset, studies=studies, seed=seed))
    console().print(f"{counted(len(systems), 'system')}, {out.stat().st_size / 1e6:.1f} MB: {out}", highlight=False)
