"""Adds one of each kind to CrossRay, each with one file; `tests/test_package.py` installs and uses it."""
