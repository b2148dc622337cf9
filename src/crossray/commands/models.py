"""`crossray models`: lists the systems."""

from crossray.pages.terminal import console


def models() -> None:
    """List the systems with their number of parameters at the default size, recipes and description."""
    from crossray.pages.terminal import print_models

    print_models(console())
