"""Codes of observations in SNOMED CT, DICOM and other schemes, from the table `codes.yaml` in this folder."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml


@dataclass(frozen=True)
class Code:
    """A code of a coding scheme.

    Attributes:
        scheme: designator of the scheme in DICOM: SCT (SNOMED CT), DCM (DICOM), LN (LOINC), or `OWN`.
        value: the code itself.
        meaning: its text.
    """

    scheme: str
    value: str
    meaning: str

    @property
    def system(self) -> str:
        """URI of the scheme in FHIR."""
        return f"urn:oid:{own_list()}" if self.scheme == OWN else str(_table()["schemes"][self.scheme])


@dataclass(frozen=True)
class ObservationCode:
    """How an observation is represented in exports.

    Attributes:
        name: one of `crossray.text.observations.OBSERVATIONS`.
        meaning: name for readers.
        code: code in a standard scheme; None if no code has the same meaning.
        verified: source of the code, as listed in `codes.yaml`; "" without a code.
        site: body site.
    """

    name: str
    meaning: str
    code: Code | None
    verified: str
    site: Code

    @property
    def own(self) -> Code:
        """CrossRay's own code, which every observation has."""
        return Code(OWN, self.name, self.meaning)

    @property
    def best(self) -> Code:
        """The standard code if there is one, else CrossRay's own."""
        return self.code or self.own


#: Designator of CrossRay's own codes, which are the names of the observations. In DICOM, private designators start with
#: 99.
OWN = "99CROSSRAY"

#: Title of a report (DICOM context group 7000).
DIAGNOSTIC_IMAGING_REPORT = Code("LN", "18748-4", "Diagnostic Imaging Report")

#: Observations that are not exported: "no finding" depends on what a report leaves out.
NOT_WRITTEN = frozenset({"no_finding"})


def own_list() -> str:
    """Return the unique identifier (OID) of the list of CrossRay's own codes."""
    return str(_table()["list"])


@functools.cache
def observation_codes() -> Mapping[str, ObservationCode]:
    """Return the codes of the built-in observations, by name."""
    sites = {name: _code(values) for name, values in _table()["sites"].items()}
    return {
        name: ObservationCode(
            name,
            values["meaning"],
            _code(values["code"]) if "code" in values else None,
            values.get("verified", ""),
            sites[values["site"]],
        )
        for name, values in _table()["observations"].items()
    }


@functools.cache
def status_codes() -> Mapping[str, Code]:
    """Return DICOM's codes for "positive", "negative" and "uncertain" (context group 240)."""
    return {name: _code(values) for name, values in _table()["statuses"].items()}


@functools.cache
def interpretations() -> Mapping[str, str]:
    """Return HL7's code for each status (v3-ObservationInterpretation)."""
    return {name: str(values["interpretation"]) for name, values in _table()["statuses"].items()}


def code_of(observation: str) -> ObservationCode:
    """Return the representation of an observation; an observation of a plug-in is represented by its name only."""
    known = observation_codes().get(observation)
    chest = _code(_table()["sites"]["chest"])
    return known or ObservationCode(observation, observation.replace("_", " ").capitalize(), None, "", chest)


def _code(values: Mapping[str, str]) -> Code:
    return Code(values["scheme"], values["value"], values["meaning"])


@functools.cache
def _table() -> Mapping[str, Any]:
    file = resources.files(__package__) / "codes.yaml"
    table: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return table
