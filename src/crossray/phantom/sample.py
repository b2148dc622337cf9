"""Samples the scenes of a phantom dataset: patient, exposure and findings."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from crossray.data.study import Split
from crossray.phantom.catalogue import CATALOGUE, LATERAL, FindingKind
from crossray.phantom.scene import Exposure, Finding, Patient, Scene, Severity

#: Maximum number of findings in a realistic scene: a report of about 60 words has no room for more.
MOST_FINDINGS = 7

#: Variation of patient and exposure, relative to the standard deviations defined by `Patient` and `Exposure`.
NUISANCE: Mapping[Severity, float] = {"easy": 0.3, "realistic": 1.0}

#: Weights of a finding's degrees, from the faintest; a finding with fewer degrees uses only the first weights.
DEGREE_WEIGHTS = (0.25, 0.4, 0.25, 0.1)

#: Shape of the gamma-distributed frailty (mean 1) that multiplies a patient's prevalences: with a shape below 1,
#: findings are concentrated in few patients, and nearly half of the studies are normal.
FRAILTY_SHAPE = 0.75

#: Share of realistic findings that are barely visible and reported as doubtful, among those where that makes sense.
UNCERTAIN_SHARE = 0.15
UNCERTAIN_KINDS = frozenset(
    {
        "atelectasis",
        "consolidation",
        "costophrenic_blunting",
        "edema",
        "hilar_enlargement",
        "mass",
        "mediastinal_widening",
        "nodule",
        "opacity",
        "pleural_effusion",
        "pneumonia",
        "pneumothorax",
        "rib_fracture",
        "scarring",
    }
)

#: Conspicuous findings with their relative frequencies; easy scenes contain no others.
EASY_KINDS: Mapping[str, float] = {
    "cardiomegaly": 5.0,
    "pleural_effusion": 5.0,
    "consolidation": 3.0,
    "pacemaker": 2.0,
    "hyperinflation": 2.0,
    "sternotomy_wires": 2.0,
    "pneumothorax": 1.5,
    "edema": 1.5,
    "elevated_diaphragm": 1.5,
    "mass": 1.0,
    "hiatal_hernia": 0.7,
    "scoliosis": 0.7,
    "chest_tube": 0.4,
}
EASY_NORMAL_SHARE = 0.35

#: By finding: probability of each companion, which is added on the same side if both have one.
COMPANIONS: Mapping[str, Mapping[str, float]] = {
    "edema": {"cardiomegaly": 0.6, "pleural_effusion": 0.5},
    "cardiomegaly": {"tortuous_aorta": 0.12, "sternotomy_wires": 0.08, "pacemaker": 0.06},
    "pleural_effusion": {"atelectasis": 0.3},
    "sternotomy_wires": {"surgical_clips": 0.3, "cardiomegaly": 0.2, "pacemaker": 0.1},
    "pacemaker": {"cardiomegaly": 0.3},
    "pneumothorax": {"chest_tube": 0.25, "rib_fracture": 0.15},
    "endotracheal_tube": {"enteric_tube": 0.7, "central_line": 0.6, "opacity": 0.4},
    "hyperinflation": {"emphysema": 0.2},
    "emphysema": {"hyperinflation": 0.5, "scarring": 0.15},
    "low_lung_volumes": {"atelectasis": 0.25},
    "tortuous_aorta": {"aortic_calcification": 0.25, "spine_degeneration": 0.2},
    "mass": {"hilar_enlargement": 0.15},
    "vertebral_fracture": {"kyphosis": 0.25},
}

#: Findings that exclude each other, or cannot be distinguished if both are present.
CONFLICTS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "hyperinflation low_lung_volumes",
        "emphysema low_lung_volumes",
        "pleural_effusion costophrenic_blunting",
        "edema interstitial_markings",
        "cardiomegaly hyperinflation",
    )
)
#: Findings of which a place can have only one.
AIRSPACE = frozenset({"opacity", "consolidation", "pneumonia", "atelectasis", "scarring", "mass", "nodule"})

MEAN_AGE, AGE_SPREAD = 52.0, 18.0
#: Findings of old age: prevalence increases with exp(slope * age / 10).
AGE_SLOPES: Mapping[str, float] = {
    "tortuous_aorta": 0.6,
    "aortic_calcification": 0.8,
    "spine_degeneration": 0.45,
    "vertebral_fracture": 0.5,
    "kyphosis": 0.6,
    "cardiomegaly": 0.2,
    "pacemaker": 0.5,
    "sternotomy_wires": 0.4,
    "hiatal_hernia": 0.4,
    "emphysema": 0.3,
}


def sample_scene(seed: int, index: int, severity: Severity) -> Scene:
    """Sample the scene of study `index`; it depends only on the arguments.

    Args:
        seed: seed of the dataset, 0 or more.
        index: number of the study, 0 or more.
        severity: "realistic": long-tailed prevalence, all degrees, doubtful findings, full variation of patient and
            exposure, some bedside (AP) pictures; "easy": at most two conspicuous findings of the stronger degrees,
            little variation, no doubt.
    """
    rng = np.random.default_rng((seed, index, 0))
    patient = sample_patient(rng, severity)
    findings = _easy_findings(rng) if severity == "easy" else _realistic_findings(rng, patient)
    names = {finding.name for finding in findings}
    exposure = sample_exposure(rng, severity, bedside="endotracheal_tube" in names or bool(rng.random() < 0.06))
    if exposure.position == "ap":
        findings = tuple(finding for finding in findings if CATALOGUE[finding.name].views != (LATERAL,))
    return Scene(int(rng.integers(2**31)), patient, exposure, findings, severity)


def split_of(seed: int, index: int) -> Split:
    """Split of study `index`: of ten consecutive studies, seven are for training, one for validation, two for test."""
    block, place = divmod(index, 10)
    order = np.random.default_rng((seed, block, 1)).permutation(10)
    rank = int(order[place])
    return "train" if rank < 7 else "val" if rank == 7 else "test"


def sample_patient(rng: np.random.Generator, severity: Severity) -> Patient:
    """Sample a patient from the population of `severity`."""
    spread = NUISANCE[severity]
    width, height, fat = (float(value) for value in np.clip(rng.normal(size=3), -2.5, 2.5) * spread)
    age = float(np.clip(rng.normal(MEAN_AGE, AGE_SPREAD), 18.0, 95.0))
    return Patient(width, height, fat, bool(rng.random() < 0.5), age)


def sample_exposure(rng: np.random.Generator, severity: Severity, *, bedside: bool = False) -> Exposure:
    """Sample an exposure; with `bedside`, an AP picture of a supine patient, more rotated and noisier."""
    spread = NUISANCE[severity]
    gain, contrast, noise, blur, inspiration = (
        float(value) for value in np.clip(rng.normal(size=5), -2.5, 2.5) * spread
    )
    rotation, tilt = (float(value) for value in rng.normal(size=2) * spread * ((5.0, 2.5) if bedside else (2.5, 1.2)))
    marker = bool(rng.random() < 0.8)
    if bedside and severity == "realistic":
        return Exposure(gain, contrast, noise + 0.5, blur + 0.5, rotation, tilt, inspiration - 0.5, "ap", marker)
    return Exposure(gain, contrast, noise, blur, rotation, tilt, 0.6 * inspiration, "pa", marker)


def sample_degree(rng: np.random.Generator, kind: FindingKind) -> str:
    """Sample one of the kind's degrees, with milder ones more probable; "" if it has none."""
    if not kind.degrees:
        return ""
    weights = np.array(DEGREE_WEIGHTS[: len(kind.degrees)])
    return str(rng.choice(kind.degrees, p=weights / weights.sum()))


def _easy_findings(rng: np.random.Generator) -> tuple[Finding, ...]:
    if rng.random() < EASY_NORMAL_SHARE:
        return ()
    weights = np.array(list(EASY_KINDS.values()))
    count = 1 + int(rng.random() < 0.3)
    names = [str(name) for name in rng.choice(list(EASY_KINDS), size=count, replace=False, p=weights / weights.sum())]
    if any(conflict <= set(names) for conflict in CONFLICTS):
        names = names[:1]
    findings: list[Finding] = []
    for name in names:
        finding = _sample_finding(rng, name, findings)
        degrees = CATALOGUE[name].degrees[-2:]
        findings.append(dataclasses.replace(finding, degree=str(rng.choice(degrees)) if degrees else ""))
    return tuple(findings)


def _realistic_findings(rng: np.random.Generator, patient: Patient) -> tuple[Finding, ...]:
    frailty = rng.gamma(FRAILTY_SHAPE, 1.0 / FRAILTY_SHAPE)
    names: list[str] = []
    for name in rng.permutation(list(CATALOGUE)).tolist():
        slope = AGE_SLOPES.get(name, 0.0) / 10.0
        # The second term makes the mean over all ages 1.
        age = np.exp(slope * (patient.age - MEAN_AGE) - (slope * AGE_SPREAD) ** 2 / 2.0)
        # 1 - exp(-rate) is a probability for any frailty, and close to the rate if that is small.
        if rng.random() < -np.expm1(-CATALOGUE[name].prevalence * frailty * age):
            names.append(name)
    for name in tuple(names):
        names += [companion for companion, share in COMPANIONS.get(name, {}).items() if rng.random() < share]
    findings: list[Finding] = []
    for name in dict.fromkeys(names):
        chosen = {finding.name for finding in findings}
        if len(findings) == MOST_FINDINGS or any(conflict <= chosen | {name} for conflict in CONFLICTS):
            continue
        finding = _sample_finding(rng, name, findings)
        if finding.name in AIRSPACE and any(_overlap(finding, other) for other in findings):
            continue
        findings.append(_doubted(rng, finding))
    return tuple(findings)


def _overlap(finding: Finding, other: Finding) -> bool:
    sides = {finding.side, other.side}
    return other.name in AIRSPACE and finding.place == other.place and (len(sides) == 1 or "bilateral" in sides)


def _sample_finding(rng: np.random.Generator, name: str, others: list[Finding]) -> Finding:
    kind = CATALOGUE[name]
    place = str(rng.choice(kind.places)) if kind.places else ""
    side = str(rng.choice(kind.sides_at(place)))
    for other in others:
        if name in COMPANIONS.get(other.name, {}) and other.side in kind.sides_at(place):
            side = other.side
    return Finding(name, side, place, sample_degree(rng, kind))


def _doubted(rng: np.random.Generator, finding: Finding) -> Finding:
    if finding.name not in UNCERTAIN_KINDS or rng.random() >= UNCERTAIN_SHARE:
        return finding
    return dataclasses.replace(finding, degree=(*CATALOGUE[finding.name].degrees, "")[0], status="uncertain")
