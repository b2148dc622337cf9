"""Phantom's truth in MedKLIP's terms, and the rules that read its reports against it."""

import numpy as np

from crossray.phantom.catalogue import CATALOGUE
from crossray.phantom.entities import FINDINGS, true_triplets
from crossray.phantom.report import write_report
from crossray.phantom.scene import Finding, Scene
from crossray.text.entities import ENTITIES, PLACES, read_sentences


def test_every_finding_has_entities_and_known_places() -> None:
    assert FINDINGS.keys() == CATALOGUE.keys()
    for name, kind in CATALOGUE.items():
        for side in kind.sides or ("",):
            for place in kind.places or ("",):
                found = true_triplets([{"finding": name, "side": side, "place": place, "status": "positive"}])
                for entity, (status, places) in found.items():
                    assert entity in ENTITIES and status == "positive" and places and places <= set(PLACES)


def test_doubt_has_no_place_and_yields_to_certainty() -> None:
    doubt = {"finding": "nodule", "side": "left", "place": "apex", "status": "uncertain"}
    sure = {"finding": "granuloma", "side": "right", "place": "base", "status": "positive"}
    assert true_triplets([doubt]) == {"nodule": ("uncertain", frozenset())}
    for rows in ([doubt, sure], [sure, doubt]):
        assert true_triplets(rows)["nodule"] == ("positive", frozenset({"right_lower_lung"}))


def test_the_rules_read_one_finding_out_of_its_report() -> None:
    """Each finding alone, as a few seeds word it: what is read is true, and hardly anything is missed."""
    reports = true = found = placed = false = 0
    watched = {entity for entities, _ in FINDINGS.values() for entity in entities}
    for name, kind in CATALOGUE.items():
        for seed in range(8):
            rng = np.random.default_rng(seed)
            place = str(rng.choice(kind.places or ("",)))
            side = str(rng.choice(kind.sides_at(place)))
            degree = str(rng.choice(kind.degrees[1:] or kind.degrees or ("",)))
            scene = Scene(seed=seed, findings=(Finding(name, side, place, degree),))
            text = write_report(scene, "train", rng).findings
            said = {t.entity: t for _, ts in read_sentences(text) for t in ts if t.status == "positive"}
            truth = true_triplets([{"finding": name, "side": side, "place": place, "status": "positive"}])
            right = truth.keys() & said.keys()
            reports, true, found = reports + 1, true + 1, found + bool(right)
            placed += any(set(said[entity].places) & truth[entity][1] for entity in right)
            false += len((said.keys() & watched) - truth.keys())
    assert found / true > 0.95
    assert placed / found > 0.85
    assert false / reports < 0.05
