"""A run as OSCAL assessment results (NIST, version 1.1.3), for tools that collect proof from many sources.

Each check that was made is an observation (method TEST) with its evidence, each control that a check speaks for a
finding: `satisfied` only where it is proven. Controls that no check speaks for are not among `reviewed-controls`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from gatehouse.proof import coverage
from gatehouse.proof.coverage import Covered
from gatehouse.proof.results import Check, Run, conclusion

Key = tuple[str, str | None, str | None]
VERSION = "1.1.3"
OURS = "https://gatehouse.invalid/ns/oscal"
_NO_TOKEN = re.compile(r"[^A-Za-z0-9.\-]+")


def document(run: Run) -> str:
    """The run as JSON, the same for the same run: identifiers are derived from what they identify (RFC 9562 §5.5)."""
    return json.dumps({"assessment-results": _results(run)}, ensure_ascii=False) + "\n"


def token(reference: str) -> str:
    """A control's reference as OSCAL may name it: a letter, then letters, digits, `.`, `-`, and `_` for all else."""
    found = _NO_TOKEN.sub("_", reference)
    return found if found[:1].isalpha() else f"_{found}"


def _results(run: Run) -> dict[str, Any]:
    base = uuid5(NAMESPACE_URL, f"{OURS}/{run.site}/{run.started.isoformat()}/{run.version}")
    begin, end = _moment(run.started), _moment(run.finished or run.started)
    subjects = {name: str(uuid5(base, f"component {name}")) for name in _places(run)}
    observations = {check.key: str(uuid5(base, f"check {check.key}")) for check in run.checks}
    spoken_for = [entry for some in coverage.controls_of(run).values() for entry in some if entry.checks]
    result = {
        "uuid": str(uuid5(base, "result")),
        "title": f"Compliance suite over the site {run.site}",
        "description": conclusion(run),
        "start": begin,
        "end": end,
        "props": [_prop("succeeded", "yes" if run.succeeded else "no")],
        "local-definitions": {"components": [_component(name, identity) for name, identity in subjects.items()]},
        "reviewed-controls": {"control-selections": [_selection(spoken_for)]},
        "observations": [_observation(check, observations[check.key], subjects, end) for check in run.checks],
        "findings": [_finding(entry, base, observations) for entry in spoken_for],
    }
    return {
        "uuid": str(base),
        "metadata": {
            "title": f"Gatehouse: proof of the site {run.site}",
            "last-modified": end,
            "version": run.version or "unknown",
            "oscal-version": VERSION,
        },
        "import-ap": {"href": "results.json", "remarks": "There is no plan apart: the suite makes every check it has."},
        "results": [{key: value for key, value in result.items() if value}],
    }


def _places(run: Run) -> list[str]:
    return list(dict.fromkeys([run.site, *(check.gateway for check in run.checks if check.gateway)]))


def _component(name: str, identity: str) -> dict[str, Any]:
    return {
        "uuid": identity,
        "type": "system",
        "title": name,
        "description": "A site, or one of its gateways.",
        "status": {"state": "operational"},
    }


def _selection(spoken_for: Iterable[Covered]) -> dict[str, Any]:
    named = sorted({token(entry.control.reference) for entry in spoken_for})
    if not named:
        return {"description": "All that the suite speaks for; no check was made.", "include-all": {}}
    return {"include-controls": [{"control-id": name} for name in named]}


def _observation(check: Check, identity: str, subjects: Mapping[str, str], moment: str) -> dict[str, Any]:
    place = check.gateway or next(iter(subjects))
    evidence = [
        {"description": json.dumps(entry, ensure_ascii=False, default=str, sort_keys=True)} for entry in check.evidence
    ]
    made: dict[str, Any] = {
        "uuid": identity,
        "title": check.id,
        "description": " ".join([f"{check.title}.", check.reason or ""]).strip(),
        "props": [_prop("verdict", check.verdict), *([_prop("segment", check.segment)] if check.segment else [])],
        "methods": ["TEST"],
        "types": ["control-objective"],
        "subjects": [{"subject-uuid": subjects[place], "type": "component"}],
        "collected": moment,
    }
    if check.waiver is not None:
        until, owner, why = (check.waiver[key] for key in ("expires", "owner", "reason"))
        made["remarks"] = f"Waived until {until} by {owner}: {why}"
    return made | ({"relevant-evidence": evidence} if evidence else {})


def _finding(entry: Covered, base: UUID, observations: Mapping[Key, str]) -> dict[str, Any]:
    status: dict[str, Any] = {"state": "satisfied" if entry.standing == "proven" else "not-satisfied"}
    if entry.standing != "proven":
        status["reason"] = "fail" if entry.standing == "failed" else "other"
    return {
        "uuid": str(uuid5(base, f"finding {entry.control.reference}")),
        "title": entry.control.reference,
        "description": f"{entry.control.title}: {entry.reason}",
        "target": {"type": "objective-id", "target-id": token(entry.control.reference), "status": status},
        "related-observations": [{"observation-uuid": observations[check.key]} for check in entry.checks],
    }


def _prop(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value, "ns": OURS}


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds")
