"""`crossray models`: the registry."""

from crossray.pages.terminal import console


def models() -> None:
    """List the systems: parameters at the default size, recipes, and what each one is."""
    from crossray.pages.terminal import print_models

    print_models(console())
