"""Files that nobody declared or shipped: AIDE looks for them every night, and has found none."""

from __future__ import annotations

import json

import pytest

from gatehouse.proof.plugin import cannot_prove
from roles.integrity import files, service
from roles.watch.files import LATE
from tests.compliance import units
from tests.compliance.test_host import EXPOSURE_AT_MOST, rated

MODES = {files.RULES: "root:root 644", files.DATABASE: f"{service.user}:{service.user} 600"}
# Programs that show who did what: whoever changes them is to be seen.
TOOLS = "auditctl auditd ausearch aureport autrace augenrules"
ASK = f"""
date +%s
sha256sum <{files.RULES} | cut -c1-64
for each in {" ".join(MODES)}; do stat -c '%U:%G %a' $each 2>/dev/null || echo missing; done
for each in {TOOLS}; do
    [ ! -e /usr/sbin/$each ] || grep -q "^/usr/sbin/$each " {files.DATABASE} || printf '%s ' $each
done
echo
cat {files.STATUS}
"""


@pytest.fixture
def here(live):
    """The gateway, where it has the role."""
    if service.name not in {each.name for each in live.site.services_of(live.name)}:
        cannot_prove(f"the gateway goes without '{service.name}'")
    return live


@pytest.mark.controls("CIS-Debian-12-v1.1.0:6.3.1-3", "IEC-62443-3-3/4-2:SR/CR 3.4")
@pytest.mark.check("host.integrity")
def test_nothing_is_on_the_gateway_that_nobody_declared_or_shipped(here, evidence):
    """AIDE looked within two days by the declared rules, comes again, and found no file of nobody."""
    times = units.next_times(here, files.TIMER)
    evidence({"from": "gateway", "sent": files.TIMER, "got": times or "no next time"})
    assert times, f"{files.TIMER} has no next time"
    asked = here.run("sh", "-c", ASK)
    lines = str(asked.result.get("output", "")).splitlines()
    if len(lines) < 3 + len(MODES):
        cannot_prove(f"the gateway does not say: {asked.result.get('error') or asked.outcome}")
    now, rules, *modes = lines[: 2 + len(MODES)]
    for (path, wanted), mode in zip(MODES.items(), modes, strict=True):
        evidence({"from": "gateway", "sent": f"stat {path}", "got": mode})
        assert mode == wanted, f"{path}: {mode}, not {wanted}"
    unseen, status = lines[2 + len(MODES)].split(), "\n".join(lines[3 + len(MODES) :])
    assert not unseen, f"not looked at: /usr/sbin/{unseen[0]}"
    assert status, f"{files.STATUS} is missing: AIDE has never looked"
    found = json.loads(status)
    got = f"{found['files']} files in {found['seconds']} s, {found['count']} findings"
    evidence({"from": "gateway", "sent": files.STATUS, "got": got, "findings": found["findings"]})
    assert found["rules"] == rules, f"{files.RULES} is not what AIDE looked by"
    late = int(now) - found["when"]
    assert late <= LATE, f"AIDE has not looked for {late / 3600:.0f} hours"
    first = [f"{each['what']}: {each['path']} ({each['how']})" for each in found["findings"]]
    more = found["count"] - 1
    assert not found["count"], f"{first[0]}{f' and {more} more' if more else ''}"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.6-7")
@pytest.mark.check("integrity.confined")
def test_what_looks_at_every_file_is_confined(here, evidence):
    """systemd rates the unit that runs AIDE as little exposed."""
    exposure = rated(here, evidence, files.UNIT)
    assert exposure is not None, f"systemd rates no {files.UNIT}"
    assert exposure <= EXPOSURE_AT_MOST, f"{files.UNIT}: exposure {exposure}, at most {EXPOSURE_AT_MOST}"
