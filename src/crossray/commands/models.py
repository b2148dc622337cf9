"""`crossray models`: lists the systems."""

from crossray.pages.terminal import console


def models() -> None:
    """List the systems with their parameters at the default size, recipes and a description."""
    from crossray.pages.terminal import print_models

    print_models(console())
