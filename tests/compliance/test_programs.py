"""Programs that say their names to the broker with a password: who gets in, and what they may do there."""

from __future__ import annotations

import pytest

from gatehouse.proof import plays
from gatehouse.proof.plays import NOT_AUTHORISED
from gatehouse.proof.plugin import cannot_prove
from tests.compliance.sessions import connected, note_step, of_cases

pytestmark = pytest.mark.asks("programs")


@pytest.fixture
def played(live):
    """The sessions of a case, one at each address."""
    if not live.site.programs:
        cannot_prove("the site has no programs, so there is no listener that takes passwords")
    return of_cases(live.programs, "programs", "no position where programs reach the broker from")


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-4", "OWASP-IoT-Top10-2018:I3")
@pytest.mark.check("programs.accepts-password")
def test_a_program_gets_in_with_its_password_wherever_that_is_declared(played, evidence):
    """A program with its generated password gets in, over TLS, at every address that is declared for programs."""
    for seen, step in connected(played, evidence, "right"):
        assert step["outcome"] == "accepted", f"{seen.target}: {step['outcome']} {step.get('reason', '')}"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-4", "ETSI-EN-303-645-v3.1.3:5.1-1", "OWASP-IoT-Top10-2018:I1")
@pytest.mark.parametrize("case", plays.NOT_LET_IN)
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.3")
@pytest.mark.check("programs.refuses-{case}")
def test_a_program_without_its_own_password_is_refused(played, case, evidence):
    """A wrong, an empty, another program's or no password, or no name: refused, where the right one gets in."""
    for seen, step in connected(played, evidence, case):
        assert step["outcome"] != "accepted", f"{seen.target}: let in with {case}"
        assert step["outcome"] in ("denied", "cut"), f"no answer that says no: {step['outcome']}"
    for _, step in connected(played, evidence, "right"):
        if step["outcome"] != "accepted":
            cannot_prove(f"not even the right password is taken: {step['outcome']}")


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.1-1", "OWASP-IoT-Top10-2018:I1")
@pytest.mark.check("programs.refuses-default")
def test_the_logins_that_attackers_try_first_are_refused(played, evidence):
    """What makers and tutorials set a broker up with is refused, each tried once, where the right password gets in."""
    for seen in played("default"):
        for step in seen.result["steps"]:
            note_step(evidence, seen, step)
            shown = seen.probe["credentials"][step["with"]]
            assert step["outcome"] != "accepted", f"{seen.target}: let in as {shown['username']}, by a default password"
            assert step["outcome"] in ("denied", "cut"), f"no answer that says no: {step['outcome']}"
    for _, step in connected(played, evidence, "right"):
        if step["outcome"] != "accepted":
            cannot_prove(f"not even the right password is taken: {step['outcome']}")


@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:4.2.2", "OWASP-IoT-Top10-2018:I3", "IEC-62443-3-3/4-2:FR2")
@pytest.mark.check("programs.confined")
def test_a_program_writes_and_reads_what_the_site_gives_it_and_nothing_else(played, evidence):
    """A program writes its own topic and gets its own message; devices' topics are refused, with a reason code."""
    for seen, step in connected(played, evidence, "right"):
        if step["outcome"] != "accepted":
            cannot_prove(f"it did not get in: {step['outcome']}")
        own, *forged = plays.steps_of(seen.result, "publish", "program")
        (came,) = plays.steps_of(seen.result, "await", "program")
        for each in (own, came, *forged):
            note_step(evidence, seen, each)
        for each in forged:
            assert each["outcome"] != "taken", f"{each['topic']} could be written"
            assert each.get("code") == NOT_AUTHORISED, f"{each['topic']}: {each['outcome']}"
        topics = {message["topic"] for message in seen.result["received"].get("program", [])}
        assert topics <= {own["topic"]}, f"received {sorted(topics - {own['topic']})[0]}"
        assert own["outcome"] == "taken", f"its own topic: {own['outcome']} {own.get('code', '')}"
        assert came["outcome"] == "received", "its own message did not come"
