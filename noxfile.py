"""The tests on every supported Python: `nox`, or `nox -s tests-3.12`. CI runs one of them through make."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.11", "3.12", "3.13"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The fast tests, with the versions of constraints.txt."""
    session.install("-c", "constraints.txt", "torch", "-e", ".[test]")
    session.run("pytest", "-n", "auto", "-m", "not slow", *session.posargs)


@nox.session(python=PYTHONS[0])
def checks(session: nox.Session) -> None:
    """Lint, types and import contracts."""
    session.install("-c", "constraints.txt", "torch", "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")
