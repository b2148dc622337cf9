"""A report that a person has edited."""

import pytest

from crossray.errors import UserError
from crossray.serving.answers import edited, edited_answer

OLD = {"id": "1", "text": "Edema.", "sentences": [{"text": "Edema."}], "observations": [{"name": "edema"}]}


def test_what_is_stated_follows_the_words_that_were_kept() -> None:
    answer = edited_answer(OLD, ["Large right pneumothorax.", " ", "No effusion."])
    assert answer["text"] == "Large right pneumothorax. No effusion."
    assert [row["text"] for row in answer["sentences"]] == ["Large right pneumothorax.", "No effusion."]
    found = {
        row["name"]: (row["status"], [word["sentence"] for word in row["words"]]) for row in answer["observations"]
    }
    assert found == {"pneumothorax": ("positive", [0]), "pleural_effusion": ("negative", [1])}
    assert OLD["text"] == "Edema."


@pytest.mark.parametrize("text", ["a\x00b", "a\x0bb", "\ud800"])
def test_characters_that_no_format_can_hold_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="number 2 contains control characters"):
        edited(["The lungs are clear.", text])
