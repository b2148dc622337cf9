"""A few damaged associations; `python -m tests.fuzz.associations` plays 2,000."""

import pytest
from tests.fuzz.associations import fuzz_node


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.slow
def test_damaged_associations_harm_nobody() -> None:
    outcome = fuzz_node(40)
    assert not outcome.faults
    assert sum(outcome.answers.values()) == 40 and outcome.stored > 1
