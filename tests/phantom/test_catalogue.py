from crossray.phantom.catalogue import CATALOGUE, FRONTAL, LATERAL
from crossray.phantom.phrases import wording
from crossray.phantom.scene import DEGREES
from crossray.text.observations import OBSERVATIONS

# The table may grow, none of these may leave it.
REQUIRED = {
    "cardiomegaly",
    "pleural_effusion",
    "pneumothorax",
    "consolidation",
    "opacity",
    "edema",
    "atelectasis",
    "nodule",
    "mass",
    "granuloma",
    "hyperinflation",
    "low_lung_volumes",
    "elevated_diaphragm",
    "rib_fracture",
    "tortuous_aorta",
    "aortic_calcification",
    "spine_degeneration",
    "scoliosis",
    "hiatal_hernia",
    "pleural_thickening",
    "scarring",
    "interstitial_markings",
    "emphysema",
    "hilar_enlargement",
    "mediastinal_widening",
    "sternotomy_wires",
    "central_line",
    "pacemaker",
    "endotracheal_tube",
    "enteric_tube",
    "chest_tube",
    "surgical_clips",
}


def test_holds_every_required_finding():
    assert set(CATALOGUE) >= REQUIRED


def test_entries_use_the_shared_vocabulary():
    for name, kind in CATALOGUE.items():
        assert set(kind.sides) <= {"left", "right", "bilateral"}, name
        ranks = [DEGREES.index(degree) for degree in kind.degrees]
        assert ranks == sorted(set(ranks)), name
        assert set(kind.observations) <= set(OBSERVATIONS) - {"no_finding"}, name
        assert kind.views, name
        assert set(kind.views) <= {FRONTAL, LATERAL}, name
        assert 0 < kind.prevalence < 0.2, name


def test_every_observation_but_no_finding_can_be_positive():
    reachable = {observation for kind in CATALOGUE.values() for observation in kind.observations}
    assert reachable == set(OBSERVATIONS) - {"no_finding"}


def test_prevalence_has_a_long_tail():
    shares = [kind.prevalence for kind in CATALOGUE.values()]
    assert max(shares) >= 0.1
    assert sum(share < 0.01 for share in shares) >= 4


def test_places_fix_the_side_where_anatomy_does():
    opacity = CATALOGUE["opacity"]
    assert opacity.sides_at("middle_lobe") == ("right",)
    assert opacity.sides_at("lingula") == ("left",)
    assert opacity.sides_at("base") == opacity.sides
    assert CATALOGUE["edema"].sides_at("") == ("",)
    assert CATALOGUE["granuloma"].sides_at("mediastinum") == ("",)


def test_every_finding_place_and_degree_has_words():
    words = wording()
    assert set(words["findings"]) == set(CATALOGUE)
    for name, kind in CATALOGUE.items():
        entry = words["findings"][name]
        assert len(set(entry["phrases"])) >= 5, name
        assert entry["reserved"], name
        assert not set(entry["phrases"]) & set(entry["reserved"]), name
        assert set(kind.places) <= set(words["places"]), name
        assert all(entry["region"] in order for order in words["orders"]), name
