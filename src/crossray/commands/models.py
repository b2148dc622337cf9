"""`crossray models`: the registry."""

from crossray.commands.show import console


def models() -> None:
    """List the systems: parameters at their default size, ablation switches, recipes and what each needs first."""
    from crossray.pages.terminal import print_models

    print_models(console())
