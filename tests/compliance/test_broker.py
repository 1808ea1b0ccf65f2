"""The broker: who gets in, and what each may do there. Seen from where devices are, by real sessions."""

from __future__ import annotations

import pytest

from gatehouse.proof import plays
from gatehouse.proof.credentials import OTHER_PROBE, PROBE
from gatehouse.proof.plays import NOT_AUTHORISED
from gatehouse.proof.plugin import cannot_prove

TOO_LARGE = 149  # §3.14.2.1

AUTHENTICATED = pytest.mark.controls(
    "ETSI-EN-303-645-v3.1.3:5.5-4",
    "ETSI-EN-303-645-v3.1.3:5.1-2A",
    "OWASP-ISVS-1.0+main-2026-06:4.2.3",
    "OWASP-IoT-Top10-2018:I3",
    "IEC-62443-3-3/4-2:FR1",
    "EU-CRA-2024/2847:Annex I Part I (2)(d)",
)
AUTHORISED = pytest.mark.controls(
    "OWASP-ISVS-1.0+main-2026-06:4.2.2",
    "OWASP-IoT-Top10-2018:I3",
    "IEC-62443-3-3/4-2:FR2",
    "EU-CRA-2024/2847:Annex I Part I (2)(d)",
)
ENCRYPTED = pytest.mark.controls(
    "ETSI-EN-303-645-v3.1.3:5.5-1",
    "RFC-9325:3.1.1/a",
    "OWASP-ISVS-1.0+main-2026-06:4.1.2",
    "ETSI-EN-303-645-v3.1.3:5.5-6",
    "ETSI-EN-303-645-v3.1.3:5.5-7",
    "ETSI-EN-303-645-v3.1.3:5.8-1",
    "ETSI-EN-303-645-v3.1.3:5.8-2",
    "IEC-62443-3-3/4-2:FR4",
    "IEC-62443-3-3/4-2:SR/CR 4.1",
    "IEC-62443-3-3/4-2:SR/CR 4.3",
)


@pytest.fixture
def runs_a_broker(live):
    if not any(service.name == "mosquitto" for service in live.site.services_of(live.name)):
        cannot_prove("this gateway goes without a broker")


pytestmark = [pytest.mark.usefixtures("runs_a_broker"), pytest.mark.asks("broker")]


def note_session(evidence, seen, *steps):
    """The steps of a play that a check rests on, as evidence; payloads are the suite's own."""
    for step in steps:
        keys = ("do", "as", "topic", "payload", "size", "outcome", "code", "version", "cipher", "reason", "ms")
        evidence(
            {
                "from": seen.position,
                "to": seen.target,
                "at": seen.result["at"],
                **{k: step[k] for k in keys if k in step},
            }
        )


def the_good_one(live, evidence):
    """The same server takes the same kind of client over the same path when its certificate is in order."""
    segment, address = live.broker_at[0]
    good = live.broker[f"broker:good@{address}"]
    step = good.result["steps"][0]
    note_session(evidence, good, step)
    if step["outcome"] != "accepted":
        cannot_prove(f"not even a good certificate is taken: {step['outcome']}")


@AUTHENTICATED
@pytest.mark.check("broker.accepts-devices")
def test_a_device_with_a_valid_certificate_gets_in_wherever_the_broker_is_declared(live, evidence):
    """A device with a valid certificate gets in, at every address the broker is declared for, and knows the broker."""
    for _, address in live.broker_at:
        seen = live.broker[f"broker:good@{address}"]
        step = seen.result["steps"][0]
        note_session(evidence, seen, step)
        assert step["outcome"] == "accepted", f"{address}: {step['outcome']} {step.get('reason', '')}"


@AUTHENTICATED
@pytest.mark.parametrize("case", plays.REFUSED)
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.3")
@pytest.mark.check("broker.refuses-{case}")
def test_a_client_whose_certificate_is_not_in_order_is_refused(live, case, evidence):
    """A client without certificate, with an expired, a foreign, a revoked one, or a server's, is refused."""
    seen = live.broker[f"broker:{case}"]
    step = seen.result["steps"][0]
    note_session(evidence, seen, step)
    assert step["outcome"] != "accepted", f"a client with the certificate '{case}' was let in"
    the_good_one(live, evidence)
    assert step["outcome"] in ("alert", "cut", "denied"), (
        f"no answer that says no: {step['outcome']} {step.get('reason', '')}"
    )


@AUTHENTICATED
@pytest.mark.check("broker.is-genuine")
def test_the_broker_proves_who_it_is(live, evidence):
    """The broker's certificate leads to the site's root and names the broker; by another root it is not trusted."""
    foreign = live.broker["broker:foreign anchor"]
    evidence(foreign)
    assert foreign.outcome == "distrusted", f"another CA vouches for the broker: {foreign}"
    for _, address in live.broker_at:
        seen = live.broker[f"broker:good@{address}"]
        step = seen.result["steps"][0]
        note_session(evidence, seen, step)
        assert step["outcome"] != "distrusted", f"{address}: not the site's broker: {step['reason']}"
    the_good_one(live, evidence)


def agreed_version(live, evidence, version):
    seen, able = live.broker[f"broker:tls {version}"], live.broker[f"able:tls {version}"]
    evidence(seen)
    if able.outcome != "agreed":
        cannot_prove(f"this position can't speak TLS {version} itself: {able.result.get('reason')}")
    return seen


@ENCRYPTED
@pytest.mark.parametrize("version", plays.VERSIONS)
@pytest.mark.check("broker.tls-{version}")
def test_tls_is_spoken_in_the_declared_versions_and_in_no_other(live, site, version, evidence):
    """TLS in this version: agreed on where the site says so, refused otherwise, by a client that can speak it."""
    wanted = version == "1.3" or (version == "1.2" and site.broker.tls == "1.2")
    seen = agreed_version(live, evidence, version)
    if wanted:
        assert seen.outcome == "agreed", f"refused: {seen}"
        assert seen.result["version"] == version
        return
    assert seen.outcome in ("alert", "cut"), f"not refused: {seen}"
    other = live.broker["broker:tls 1.3"]
    evidence(other)
    if other.outcome != "agreed":
        cannot_prove(f"no version is spoken, so a refusal proves nothing: {other}")


@ENCRYPTED
@pytest.mark.controls("RFC-9325:4.1/d", "RFC-9325:4.2/b", "OWASP-ISVS-1.0+main-2026-06:2.4.2")
@pytest.mark.check("broker.tls-suites")
def test_suites_without_authenticated_encryption_are_refused(live, evidence):
    """A client that offers nothing but suites of the past gets no session."""
    seen, able = live.broker["broker:old suites"], live.broker["able:old suites"]
    evidence(seen)
    if able.outcome != "agreed":
        cannot_prove(f"this position has no such suites itself: {able.result.get('reason')}")
    assert seen.outcome in ("alert", "cut"), f"not refused: {seen}"
    the_good_one(live, evidence)


def played(live, name):
    seen = live.broker[f"broker:{name}"]
    if seen.outcome != "played":
        cannot_prove(f"the play ended early: {seen}")
    for step in plays.steps_of(seen.result, "connect", "device") + plays.steps_of(seen.result, "connect", "observer"):
        if step["outcome"] != "accepted":
            cannot_prove(f"{step['as']} did not get in: {step['outcome']}")
    return seen


def one(seen, do, who, **wanted):
    (step,) = plays.steps_of(seen.result, do, who, **wanted)
    return step


def received(seen, who):
    return [message["payload"] for message in seen.result["received"].get(who, [])]


@AUTHORISED
@pytest.mark.check("broker.delivers")
def test_what_a_device_publishes_under_its_own_topic_is_received(live, evidence):
    """A device publishes under its own topic: who may read it receives it, and a command comes back."""
    seen = played(live, "rights")
    steps = [
        one(seen, "publish", "device", payload="own telemetry"),
        one(seen, "await", "observer", payload="own telemetry"),
    ]
    steps += [one(seen, "publish", "observer", payload="command"), one(seen, "await", "device", payload="command")]
    note_session(evidence, seen, *steps)
    assert steps[0]["outcome"] == "taken"
    assert steps[1]["outcome"] == "received", "published, and nobody received it"
    assert steps[3]["outcome"] == "received", "a command did not reach the device"


def refused_and_not_delivered(live, evidence, payload, to, control=""):
    """The reason code says no, and the message does not come; another one over the same sessions does."""
    seen = played(live, "rights")
    step = one(seen, "publish", "device", payload=payload)
    note_session(evidence, seen, step)
    assert payload not in received(seen, to), f"{payload} was delivered"
    assert step["code"] == NOT_AUTHORISED, f"{payload}: {step['outcome']}, code {step.get('code')}"
    usual = {"observer": "the other's telemetry", "other": "command to the other", "device": "command"}
    control = control or usual[to]
    control_step = one(seen, "await", to, payload=control)
    note_session(evidence, seen, control_step)
    if control_step["outcome"] != "received":
        cannot_prove(f"{to} received nothing at all, so that nothing came proves nothing")


@AUTHORISED
@pytest.mark.check("broker.denies-others-telemetry")
def test_a_device_cannot_publish_as_another(live, evidence):
    """Publishing under another device's topic is refused with a reason code, and nobody receives it."""
    refused_and_not_delivered(live, evidence, "forged telemetry", "observer")


@AUTHORISED
@pytest.mark.check("broker.denies-own-commands")
def test_a_device_cannot_command_itself(live, evidence):
    """Publishing on its own command topic is refused, and does not come back."""
    refused_and_not_delivered(live, evidence, "own command", "device")


@AUTHORISED
@pytest.mark.check("broker.denies-others-commands")
def test_a_device_cannot_command_another(live, evidence):
    """Publishing on another device's command topic is refused, and does not arrive there."""
    refused_and_not_delivered(live, evidence, "forged command", "other")


@AUTHORISED
@pytest.mark.controls("IEC-62443-3-3/4-2:FR1")
@pytest.mark.check("broker.takes-requests")
def test_a_device_asks_for_a_new_certificate_and_receives_the_answer(live, evidence):
    """What a device asks under its own topic arrives, and so does the answer, over the session it has."""
    seen = played(live, "rights")
    steps = [one(seen, "publish", "device", payload="own request")]
    steps += [one(seen, "await", "observer", payload="own request"), one(seen, "await", "device", payload="answer")]
    note_session(evidence, seen, *steps)
    assert steps[0]["outcome"] == "taken", "a device can't ask for a new certificate: its own will end"
    assert steps[1]["outcome"] == "received", "it asked, and nobody received it"
    assert steps[2]["outcome"] == "received", "the answer did not reach the device"


@AUTHORISED
@pytest.mark.check("broker.denies-others-requests")
def test_a_device_cannot_ask_for_a_certificate_in_anothers_name(live, evidence):
    """Asking under another device's topic is refused with a reason code, and nobody receives it."""
    refused_and_not_delivered(live, evidence, "forged request", "observer", "own request")


@AUTHORISED
@pytest.mark.check("broker.denies-own-answers")
def test_a_device_cannot_answer_itself(live, evidence):
    """Publishing a certificate for itself is refused, and does not come back."""
    refused_and_not_delivered(live, evidence, "own certificate", "device", "answer")


@AUTHORISED
@pytest.mark.check("broker.denies-others-answers")
def test_a_device_receives_no_certificate_of_another(live, evidence):
    """What is answered to another device reaches that one, and not this one, which subscribed to it and has its own."""
    seen = played(live, "rights")
    theirs, mine = (
        one(seen, "await", "other", payload="the other's answer"),
        one(seen, "await", "device", payload="answer"),
    )
    note_session(evidence, seen, theirs, mine)
    assert "the other's answer" not in received(seen, "device"), "received what was answered to another device"
    if (theirs["outcome"], mine["outcome"]) != ("received", "received"):
        cannot_prove("an answer did not arrive where it should either")


@AUTHORISED
@pytest.mark.check("broker.denies-listening-in")
def test_a_device_receives_nothing_that_is_not_its_own(live, evidence):
    """A device that subscribes to everything receives its own commands, and nothing of another device's."""
    seen = played(live, "rights")
    step = one(seen, "await", "device", payload="command")
    note_session(evidence, seen, *plays.steps_of(seen.result, "subscribe", "device"), step)
    got = [m["topic"] for m in seen.result["received"].get("device", [])]
    evidence({"from": seen.position, "sent": "subscriptions to everything", "got": f"messages on {sorted(set(got))}"})
    strange = [t for t in got if not t.startswith((f"devices/{PROBE}/commands/", "$SYS"))]
    assert not strange, f"received {strange[0]}"
    meant = {"observer": "the other's telemetry", "other": "command to the other"}
    others = [one(seen, "await", who, payload=payload)["outcome"] for who, payload in meant.items()]
    if others != ["received", "received"] or step["outcome"] != "received":
        cannot_prove("there was nothing to listen in to, or this device received nothing at all")


@AUTHORISED
@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.6-2")
@pytest.mark.check("broker.denies-state")
def test_a_device_learns_nothing_of_the_brokers_state(live, evidence):
    """Nothing below $SYS is delivered to a device, and it can publish nothing there."""
    seen = played(live, "rights")
    note_session(
        evidence,
        seen,
        one(seen, "subscribe", "device", topic="$SYS/#"),
        one(seen, "await", "device", payload="command"),
    )
    got = [m["topic"] for m in seen.result["received"].get("device", []) if m["topic"].startswith("$SYS")]
    assert not got, f"received {got[0]} and {len(got) - 1} more"
    forged = one(seen, "publish", "device", payload="forged state")
    note_session(evidence, seen, forged)
    assert forged["outcome"] != "taken", "could publish below $SYS"
    if one(seen, "await", "device", payload="command")["outcome"] != "received":
        cannot_prove("this device received nothing at all")


@AUTHORISED
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.2")
@pytest.mark.check("broker.denies-takeover")
def test_a_device_cannot_take_over_anothers_session(live, evidence):
    """Another device's client id does not end that device's session; its own certificate does."""
    seen = played(live, "takeover")
    first, alive, ended = plays.steps_of(seen.result, "ping", "victim")
    connects = [one(seen, "connect", who) for who in ("victim", "thief", "again")]
    note_session(evidence, seen, *connects, first, alive, ended)
    if first["outcome"] != "answered":
        cannot_prove(f"the device had no session to lose: {connects[0]['outcome']}")
    assert alive["outcome"] == "answered", f"its session ended: {alive['outcome']} {alive.get('code', '')}"
    if ended["outcome"] == "answered":
        cannot_prove("a session was not taken over by its own device either, so the probe can't tell")


@AUTHENTICATED
@pytest.mark.check("broker.identity-from-certificate")
def test_who_a_device_is_stands_in_its_certificate_and_nowhere_else(live, evidence):
    """A user name in CONNECT changes nothing: rights are those of the certificate's name. A name as such has none."""
    seen = played(live, "pretence")
    for who, own in (("liar", f"{PROBE}-liar"), ("stranger", "admin")):
        connected = one(seen, "connect", who)
        note_session(evidence, seen, connected)
        if connected["outcome"] != "accepted":
            continue  # refused altogether: nothing is gained either
        itself = one(seen, "publish", who, topic=plays.topic(own, "telemetry"))
        attempts = [s for s in plays.steps_of(seen.result, "publish", who) if f"/{OTHER_PROBE}/" in s["topic"]]
        note_session(evidence, seen, itself, *attempts)
        for attempt in attempts:
            assert attempt["code"] == NOT_AUTHORISED, (
                f"{who}: {attempt['payload']} on {attempt['topic']}: {attempt['outcome']}"
            )
        if itself["outcome"] != "taken":
            cannot_prove(f"{who} can publish nothing at all, so a refusal proves nothing")
    assert not received(seen, "stranger"), f"'admin' received {received(seen, 'stranger')[0]}"
    the_good_one(live, evidence)


@pytest.mark.controls("ENISA-IoT-Baseline-2017:GP-TM-51", "OWASP-IoT-Top10-2018:I2", "IEC-62443-3-3/4-2:SR/CR 7.1")
@pytest.mark.controls("IEC-62443-3-3/4-2:FR7")
@pytest.mark.check("broker.limits-packets")
def test_a_packet_beyond_the_limit_ends_the_session(live, site, evidence):
    """A message just within the site's limit is taken; one beyond ends the session, and is not taken."""
    seen = played(live, "excess")
    within, beyond = plays.steps_of(seen.result, "publish", "device")
    note_session(evidence, seen, within, beyond)
    assert beyond["outcome"] != "taken", (
        f"{beyond['size']} bytes were taken; the limit is {site.broker.max_packet_bytes}"
    )
    if within["outcome"] != "taken":
        cannot_prove(f"{within['size']} bytes are refused, too: {within['outcome']} {within.get('code', '')}")
    assert beyond.get("code", TOO_LARGE) >= 128
