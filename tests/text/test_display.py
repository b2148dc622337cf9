"""Texts for people."""

import pytest

from crossray.text.display import readable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("heart size is normal . no effusion .", "Heart size is normal. No effusion."),
        ("wedging of t12 and l1 , unchanged .", "Wedging of T12 and L1, unchanged."),
        ("picc tip in the svc", "PICC tip in the SVC"),
        ("there is <unk> . xxxx", "There is [unknown]. Xxxx"),
        ("right-sided ( mild ) opacity .", "Right-sided (mild) opacity."),
        (". heart", ". Heart"),
        ("", ""),
    ],
)
def test_readable(text, shown):
    assert readable(text) == shown
