"""Whether the kernel confines by AppArmor what the kit says it does. Containers have no kernel that could."""

from __future__ import annotations

import re

import pytest

from gatehouse.proof.plugin import cannot_prove
from roles.apparmor import CONFINED, profile
from roles.apparmor.facts import Confinement

CIS = "CIS-Debian-12-v1.1.0"
# `profile (enforce)`, as the kernel lists them and as each process has it.
MODE = re.compile(r"^(.+) \((\w+)\)$", re.MULTILINE)
# What only notes what it should refuse, or asks somebody who is not there. (Profiles of Debian 13 that say `unconfined`
# themselves only name a program, so that it may do what others may not.)
WEAK = ("complain", "prompt")


@pytest.mark.controls(f"{CIS}:1.3.1.1", f"{CIS}:1.3.1.4", "OWASP-ISVS-1.0+main-2026-06:3.3.5")
@pytest.mark.check("host.apparmor")
def test_what_faces_a_network_is_held_to_a_profile_and_nothing_runs_by_one_that_only_complains(live, evidence):
    """Every profile of the kit's, and of what runs, is enforced, and each process of the services that have one has it.

    Debian 13 brings profiles that only complain, of programs that a gateway doesn't have: nothing runs by them.
    """
    fact = Confinement()
    state = fact.process(str(live.run("sh", "-c", fact.command()).result["output"]).splitlines())
    if not state.confines:
        where = "a container is confined by the machine underneath" if live.is_container else "this kernel has it off"
        cannot_prove(f"no AppArmor: {where}")
    loaded = str(live.run("cat", "/sys/kernel/security/apparmor/profiles").result.get("output", ""))
    modes = dict(MODE.findall(loaded))
    each = str(live.run("sh", "-c", "cat /proc/[0-9]*/attr/apparmor/current 2>/dev/null; true").result["output"])
    running = {name: mode for name, mode in MODE.findall(each)}
    relied_on = running | {name: modes[name] for name in map(profile, CONFINED) if name in modes}
    weak = sorted(name for name, mode in relied_on.items() if mode in WEAK)
    idle = sorted(name for name, mode in modes.items() if mode in WEAK and name not in relied_on)
    got = f"{len(modes)}, {len(running)} of what runs; only complaining: {weak}; so, but nothing runs by it: {idle}"
    evidence({"from": "gateway", "sent": "profiles that the kernel has", "got": got})
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
