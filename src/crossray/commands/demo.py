"""`crossray demo`: an end-to-end example in minutes."""

from pathlib import Path

from crossray.pages.terminal import console

#: Exit code of a demo whose own check fails.
FAILED = 1


def demo(
    out: Path = Path("demo"),
    system: str = "baseline",
    studies: int = 700,
    seed: int = 0,
) -> None:
    """Run an end-to-end example on synthetic images: draw, train, generate, evaluate, and write a page.

    Args:
        out: output folder; the page is index.html in the system's subfolder. An unfinished demo is continued;
            delete the folder to start over.
        system: system to train, with its recipe SYSTEM/demo.
        studies: number of studies to draw; one fifth becomes the test split.
        seed: random seed of the images and the training.
    """
    from crossray.demo import run_demo

    checks = run_demo(out, system=system, studies=studies, seed=seed, console=console())
    if not all(check.holds for check in checks):
        raise SystemExit(FAILED)
