"""What the rules read of entities and places: sentences written for this test."""

import numpy as np
import pytest

from crossray.text.entities import (
    DESCRIPTIONS,
    ENTITIES,
    PLACES,
    content,
    place_names,
    read_sentences,
    summarize,
    triplet_text,
)
from crossray.text.observations import STATUSES


def test_names_and_order_are_medklips() -> None:
    assert (len(ENTITIES), len(PLACES), len(set(DESCRIPTIONS))) == (75, 51, 75)
    assert [ENTITIES.index(name) for name in ("normal", "effusion", "cardiomegaly", "excluded_obs")] == [0, 8, 24, 74]
    assert [PLACES.index(name) for name in ("trachea", "left_pleural", "spine", "other")] == [0, 4, 35, 50]


def test_every_region_stands_for_known_places() -> None:
    for name in content()["regions"]:
        for side in ("left", "right", "both", "none"):
            assert set(place_names(name, side)) <= set(PLACES)
    reached = {
        place
        for name in content()["regions"]
        for side in ("left", "right", "both", "none")
        for place in place_names(name, side)
    }
    assert set(PLACES) - reached == {"unspecified"}


@pytest.mark.parametrize(
    ("sentence", "entity", "status", "places"),
    [
        ("A small left pleural effusion is seen.", "effusion", "positive", {"left_pleural"}),
        ("Effusion on the right.", "effusion", "positive", {"right_pleural"}),
        ("Bilateral pleural effusions.", "effusion", "positive", {"left_pleural", "right_pleural"}),
        ("No pleural effusion or pneumothorax.", "pneumothorax", "negative", {"pleural_unspec"}),
        ("There is no effusion, the heart is enlarged.", "enlarge", "positive", {"heart_size"}),
        ("The heart is enlarged.", "cardiomegaly", "positive", {"heart_size"}),
        ("The heart is not enlarged.", "cardiomegaly", "negative", {"heart_size"}),
        ("Opacity in the right lower lobe may represent pneumonia.", "pneumonia", "uncertain", {"lower_right_lobe"}),
        ("Left basilar atelectasis cannot be excluded.", "atelectasis", "uncertain", {"left_lower_lung"}),
        ("Right lower lobe consolidation consistent with pneumonia.", "pneumonia", "positive", {"lower_right_lobe"}),
        ("Pulmonary nodule at the left lung apex.", "nodule", "positive", {"left_apical_lung"}),
        ("Calcified granuloma in the lingula.", "calcification", "positive", {"upper_left_lobe"}),
        ("No consolidation, pleural effusion or edema.", "consolidation", "negative", {"pulmonary"}),
        ("The costophrenic angles are sharp.", "sharp", "positive", {"costophrenic_unspec"}),
        ("The lungs are not clear.", "clear", "negative", {"pulmonary"}),
        ("Catheter tip at the cavoatrial junction.", "tip", "positive", {"cavoatrial_junction"}),
        ("An old tube is somewhere.", "tube", "positive", {"unspecified"}),
    ],
)
def test_triplets_of_a_sentence(sentence: str, entity: str, status: str, places: set[str]) -> None:
    (said,) = [triplets for _, triplets in read_sentences(sentence)]
    found = {triplet.entity: triplet for triplet in said}
    assert (found[entity].status, set(found[entity].places)) == (status, places)


def test_what_is_not_said_is_not_read() -> None:
    assert [triplets for _, triplets in read_sentences("The patient was positioned upright. History of fracture.")] == [
        (),
        (),
    ]
    assert read_sentences("") == []


def test_a_report_has_the_strongest_status_and_the_places_of_positive_mentions() -> None:
    report = "No effusion on the left. Small right pleural effusion. Possible nodule. Cleaned . no mass"
    said = summarize([triplet for _, triplets in read_sentences(report) for triplet in triplets])
    status = {name: STATUSES[code] for name, code in zip(ENTITIES, said.statuses, strict=True)}
    assert (status["effusion"], status["nodule"], status["mass"], status["edema"]) == (
        "positive",
        "uncertain",
        "negative",
        "blank",
    )
    assert [PLACES[place] for place in np.flatnonzero(said.places[ENTITIES.index("effusion")])] == ["right_pleural"]
    assert said.places.sum() == 1


def test_a_triplet_in_words_can_be_read_by_the_word_encoder() -> None:
    assert triplet_text("effusion", "left_pleural", True) == "effusion; located at left_pleural; present"
    assert triplet_text("mass", "unspecified", False) == "mass; located at unspecified; absent"
