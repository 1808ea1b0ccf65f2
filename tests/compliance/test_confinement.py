"""Whether the kernel confines by AppArmor what the kit says it does. Containers have no kernel that could."""

from __future__ import annotations

import re

import pytest

from gatehouse.proof.plugin import cannot_prove
from roles.apparmor import CONFINED, profile
from roles.apparmor.facts import Confinement

CIS = "CIS-Debian-12-v1.1.0"
# `profile (enforce)`, as the kernel lists them and as each process has it.
MODE = re.compile(r"^(\S+) \((\w+)\)$", re.MULTILINE)


@pytest.mark.controls(f"{CIS}:1.3.1.1", f"{CIS}:1.3.1.4", "OWASP-ISVS-1.0+main-2026-06:3.3.5")
@pytest.mark.check("host.apparmor")
def test_what_faces_a_network_is_held_to_a_profile_and_no_profile_only_complains(live, evidence):
    """Every profile that the kernel has is enforced, and each process of the services that have one runs by it."""
    fact = Confinement()
    state = fact.process(str(live.run("sh", "-c", fact.command()).result["output"]).splitlines())
    if not state.confines:
        where = "a container is confined by the machine underneath" if live.is_container else "this kernel has it off"
        cannot_prove(f"no AppArmor: {where}")
    loaded = str(live.run("cat", "/sys/kernel/security/apparmor/profiles").result.get("output", ""))
    modes = dict(MODE.findall(loaded))
    # Profiles of Debian 13 that say `unconfined` themselves only name a program, so that it may do what others may not.
    weak = sorted(name for name, mode in modes.items() if mode in ("complain", "prompt"))
    evidence(
        {"from": "gateway", "sent": "profiles that the kernel has", "got": f"{len(modes)}, only complaining: {weak}"}
    )
    assert not weak, f"{weak[0]} is not enforced{f', and {len(weak) - 1} more' if weak[1:] else ''}"
    evidence({"from": "gateway", "sent": "units without their profile", "got": list(state.without) or "none"})
    assert not state.without, f"{state.without[0]} runs without the profile that is loaded for it"
    here = {service.name for service in live.site.services_of(live.name)}
    for name, unit in CONFINED.items():
        if name in here:
            of = f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs"
            each = f"for each in $(cat {of}); do cat /proc/$each/attr/apparmor/current; done"
            held = str(live.run("sh", "-c", each).result.get("output", "")).splitlines()
            evidence({"from": "gateway", "sent": f"profile of each process of {unit}", "got": held or "no process"})
            assert held, f"{unit} has no process"
            wrong = [line for line in held if line != f"{profile(name)} (enforce)"]
            assert not wrong, f"{unit}: {wrong[0]}, not {profile(name)} (enforce)"
