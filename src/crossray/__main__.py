"""`python -m crossray` is `crossray`."""

from crossray.cli import main

main()
