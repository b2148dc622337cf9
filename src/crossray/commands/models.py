"""`crossray models`: the registry."""

from crossray.pages.terminal import console


def models() -> None:
    """List the systems with parameter counts, ablation switches, recipes and prerequisites."""
    from crossray.pages.terminal import print_models

    print_models(console())
