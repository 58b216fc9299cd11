"""A signed case as FHIR R5: a Bundle with a DiagnosticReport and its Observations, validated.

The resources are built by ``fhir.resources`` (R5), which checks every field. The only identifier
is the name of the case, since a review knows no patients.

The report's code is LOINC 29770-5. The karyotype's is LOINC 62356-1, whose value is a karyotype in
ISCN, as in the example of HL7's guide for reports of birth defects
(https://build.fhir.org/ig/HL7/fhir-birthdefectsreporting-ig/Observation-ObservationChromosomeExample.html).
"""

from __future__ import annotations

import uuid
from typing import Any

from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.karyotype.case import CaseResult
from deepacc_d2.review.cases import CaseState

LOINC = "http://loinc.org"
REPORT = ("29770-5", "Karyotype [Identifier] in Blood or Tissue Nominal")
ISCN = ("62356-1", "Chromosome analysis result in ISCN expression")
"""LOINC's code and name of the report, and of the karyotype in it."""
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
CASES = "urn:deepacc-d2:case"
_SPACE = uuid.UUID("6f0b6a2e-64c4-4d0c-9a2f-1f4f6a0b5d11")


def fhir_bundle(result: CaseResult, state: CaseState, *, about: str) -> dict[str, Any]:
    """Returns a signed case as a FHIR Bundle, as plain values.

    Args:
        result: of the case's cells, the karyotype of a person put in.
        state: with both signatures.
        about: the model and that it was reviewed.

    Raises:
        DataError: the case is not signed by both readers, or has no karyotype.
        ConfigError: the package fhir.resources is missing.
    """
    if not state.locked:
        raise DataError(f"case {result.case_id} is not signed by two readers: sign it first")
    if not result.karyotype:
        raise DataError(f"case {result.case_id} has no karyotype: give one, with a reason")
    try:
        from fhir.resources.bundle import Bundle
    except ModuleNotFoundError:
        raise ConfigError(
            "fhir.resources is not installed: run make setup EXTRAS=review first"
        ) from None
    name = str(result.case_id)
    at = state.signatures[-1].at
    observations = [_observation(name, at, "karyotype", _code(*ISCN), result.karyotype)]
    observations[0]["note"] = [{"text": note} for note in result.notes]
    for n, clone in enumerate(result.clones, start=1):
        made = _observation(name, at, f"clone-{n}", {"text": "cells of a clone"}, clone.karyotype)
        made["component"] = [
            {"code": {"text": "number of cells"}, "valueInteger": clone.n},
            {"code": {"text": "cells"}, "valueString": ", ".join(clone.names)},
        ]
        observations.append(made)
    report = {
        "resourceType": "DiagnosticReport",
        "id": _id(name, "report"),
        "status": "final",
        "code": _code(*REPORT),
        "subject": _subject(name),
        "issued": at,
        "identifier": [{"system": CASES, "value": name}],
        "resultsInterpreter": [{"display": f"{s.who} ({s.role} reader)"} for s in state.signatures],
        "result": [{"reference": f"urn:uuid:{o['id']}"} for o in observations],
        "conclusion": f"{result.karyotype}. {DISCLAIMER}",
        "note": [{"text": about}],
    }
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": at,
        "entry": [
            {"fullUrl": f"urn:uuid:{each['id']}", "resource": each}
            for each in (report, *observations)
        ],
    }
    content: dict[str, Any] = Bundle.model_validate(bundle).model_dump(mode="json")
    return content


def _observation(case: str, at: str, what: str, code: dict[str, Any], value: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": _id(case, what),
        "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": "laboratory"}]}],
        "code": code,
        "subject": _subject(case),
        "effectiveDateTime": at,
        "valueString": value,
    }


def _subject(case: str) -> dict[str, Any]:
    return {"identifier": {"system": CASES, "value": case}, "display": f"case {case}"}


def _code(loinc: str, name: str) -> dict[str, Any]:
    return {"coding": [{"system": LOINC, "code": loinc, "display": name}], "text": "Karyotype"}


def _id(*parts: str) -> str:
    """Returns the same id for the same thing each time."""
    return str(uuid.uuid5(_SPACE, "/".join(parts)))
