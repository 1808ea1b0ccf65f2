"""The nightly verification: it looks at all that is declared, says what is so, is confined, and comes every night."""

from __future__ import annotations

import json

import pytest

from roles.target import Target
from roles.watch import files
from tests.compliance import units
from tests.compliance.test_host import EXPOSURE_AT_MOST, rated

LATE = 300  # seconds between the start of a run and its result


def looked_at(live):
    """The ids of all that the nightly verification must look at."""
    expected = files.settings(Target(live.site, live.name, lambda: live.pki))
    named = {f"unit {name}" for name in expected["units"]} | {"units failed", "accounts", "packages", "free /"}
    named |= {"integrity"} if expected["integrity"] else set()
    named |= {f"open {address} {port}" for address, port in expected["open"]} | {"firewall"}
    for address in (expected["broker"] or {}).get("addresses", ()):
        named |= {f"broker certificate {address}", f"broker refuses {address}"}
    return named


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.7-2", "IEC-62443-3-3/4-2:SR/CR 6.2")
@pytest.mark.controls("EU-CRA-2024/2847:Annex I Part II (3)")
@pytest.mark.check("watch.nightly")
def test_the_nightly_verification_looks_at_all_that_is_declared_and_says_what_is_so(live, evidence):
    """The nightly verification, run now, leaves a result of now, looks at everything, and says of units what is so."""
    begun = live.run("date", "+%s")
    started = live.run("systemctl", "start", files.UNIT)
    evidence({"from": "gateway", "sent": f"systemctl start {files.UNIT}", "got": started.outcome})
    assert started.result.get("status") == 0, f"{files.UNIT} can't do its work"
    result = json.loads(live.run("cat", files.RESULT).result["output"])
    late = result["when"] - int(begun.result["output"])
    assert -2 <= late <= LATE, f"its result is of another time: {late:.0f} s from now"
    wrong = {name: how for name, how in result["checks"].items() if how}
    evidence({"from": "gateway", "sent": files.RESULT, "got": f"{len(result['checks'])} looked at, wrong: {wrong}"})
    missing = sorted(looked_at(live) - result["checks"].keys())
    assert not missing, f"it does not look at {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}"
    declared = files.settings(Target(live.site, live.name, lambda: live.pki))["units"]
    # As they are now, not as they were when another check asked.
    for name, unit in units.states(live, declared).items():
        evidence({"from": "gateway", "sent": f"unit {name}", "got": f"{unit.active}, {unit.file}"})
        well = unit.runs and unit.starts
        assert well == (f"unit {name}" not in wrong), f"{name}: it says '{wrong.get(f'unit {name}', 'in order')}'"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.6-7")
@pytest.mark.check("watch.confined")
def test_the_nightly_verification_is_confined(live, evidence):
    """systemd rates the unit of the nightly verification as little exposed."""
    exposure = rated(live, evidence, files.UNIT)
    assert exposure is not None, f"systemd rates no {files.UNIT}"
    assert exposure <= EXPOSURE_AT_MOST, f"{files.UNIT}: exposure {exposure}, at most {EXPOSURE_AT_MOST}"
