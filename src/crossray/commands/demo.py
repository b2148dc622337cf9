"""`crossray demo`: the whole way in minutes."""

from pathlib import Path

from crossray.commands.show import console

#: Exit code of a demo whose own check fails.
FAILED = 1


def demo(
    out: Path = Path("demo"),
    system: str = "baseline",
    studies: int = 700,
    seed: int = 0,
) -> None:
    """Go the whole way in minutes: draw a set, train, write the test reports, score them, and leave a page.

    Args:
        out: folder of everything that the demo makes; the page is index.html in the system's folder there; delete it
            to start anew.
        system: which system to train, small; it needs a recipe SYSTEM/demo, as each in `crossray models` has.
        studies: how many studies to draw; a fifth of them is the test split.
        seed: seed of drawing and training.
    """
    from crossray.demo import run_demo

    checks = run_demo(out, system=system, studies=studies, seed=seed, console=console())
    if not all(check.holds for check in checks):
        raise SystemExit(FAILED)
