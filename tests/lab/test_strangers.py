"""What ssh-audit, nmap and debsecan find on the lab's gateway: strangers to the kit. Others have files of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest

import lab
from deploy import tools, vaults
from gatehouse.identity.programs import password_of, user_name
from gatehouse.site import derive
from gatehouse.site.pages import hosts
from gatehouse.site.policy import InputRule
from lab.topology import HOST_OF
from tests.checkout import Checkout
from tests.feeds import JINJA, archive, mirrored, one_entry
from tests.lab.gateways import Gateway
from tests.lab.reviewed import reviewed

pytestmark = pytest.mark.timeout(300)

MANAGEMENT = "10.10.20.1"
SSHD = "/etc/ssh/sshd_config.d/10-gatehouse.conf"


def ssh_audit() -> set[tuple[str, str]]:
    """What it fails or warns of, and why. The rate of connections is left out: it would open hundreds."""
    program = Path(sys.executable).with_name("ssh-audit")
    done = subprocess.run(
        [program, "--skip-rate-test", "-jj", "-p", "22", MANAGEMENT], capture_output=True, text=True, timeout=60
    )
    said = json.loads(done.stdout)
    assert all(said[kind] for kind in ("kex", "key", "enc", "mac")), said
    return {
        (f"{kind} {each['algorithm']}", why)
        for kind in ("kex", "key", "enc", "mac")
        for each in said[kind]
        for level in ("fail", "warn")
        for why in each["notes"].get(level, ())
    } | {(f"cve {each['name']}", each["description"]) for each in said["cves"]}


def test_ssh_audit_finds_nothing_but_what_was_reviewed(gateway: Gateway) -> None:
    assert ssh_audit() == set(reviewed("ssh-audit").items())


def test_ssh_audit_does_find_what_is_weak(gateway: Gateway) -> None:
    gateway.is_hardened = False
    gateway(f"sed -i -E 's/^MACs .*/&,hmac-sha1/; s/^Ciphers .*/&,aes128-cbc/' {SSHD} && systemctl reload ssh")
    assert {"mac hmac-sha1", "enc aes128-cbc"} <= {what for what, _ in ssh_audit()}
    gateway.converge()


def suites(gateway: Gateway, rule: InputRule) -> tuple[dict[str, dict[str, str]], str]:
    """What nmap's ssl-enum-ciphers finds from the rule's segment: grades by protocol and suite, and the worst grade.

    Nothing at an open port that agrees with nobody who has no key of its own.
    """
    command = ["nmap", "-Pn", "-n", "-oX", "-", "--script", "+ssl-enum-ciphers", "-p", str(rule.listener.port)]
    # What nginx serves answers nobody who asks for no name.
    site = gateway.checkout.site
    name = f"updates.{site.domain}" if rule.service == "updates" else hosts(site, "gateway")[0].name
    command += ["--script-args", f"tls.servername={name}"]
    done = lab.run(gateway.name, HOST_OF[rule.segment], [*command, str(rule.addresses[0])], timeout=120)
    assert done.returncode == 0, done.stderr
    report = fromstring(done.stdout)  # noqa: S314
    state, script = report.find(".//port/state"), report.find(".//script[@id='ssl-enum-ciphers']")
    assert state is not None and state.get("state") == "open", done.stdout
    if script is None:
        return {}, ""
    found: dict[str, dict[str, str]] = {}
    for protocol in (each for each in script.findall("table")):
        offered = protocol.findall("table[@key='ciphers']/table")
        found[str(protocol.get("key"))] = {text(each, "name"): text(each, "strength") for each in offered}
    return found, text(script, "least strength")


def text(element: Element, key: str) -> str:
    found = element.find(f"elem[@key='{key}']")
    assert found is not None and found.text
    return found.text


def test_nmap_grades_every_tls_port_with_an_a(gateway: Gateway, here: Checkout) -> None:
    rules = [rule for rule in derive(here.site, "gateway").input if rule.listener.encryption == "tls"]
    once = {rule.listener.port: rule for rule in rules if rule.segment in HOST_OF}
    assert {443, 8883} <= set(once) >= {rule.listener.port for rule in rules}
    for port, rule in once.items():
        found, worst = suites(gateway, rule)
        if rule.listener.only_with == "psk":
            assert found == {}, port
            continue
        assert set(found) <= {"TLSv1.2", "TLSv1.3"} and worst == "A", (port, found)
        assert found and all(found.values()), (port, found)


def test_nmap_does_find_what_is_weak(gateway: Gateway, here: Checkout) -> None:
    gateway.is_hardened = False
    weak = "s/ssl_protocols .*/ssl_protocols TLSv1.1 TLSv1.2;/; s/ssl_ciphers .*/ssl_ciphers ALL:@SECLEVEL=0;/"
    gateway(f"sed -i '{weak}' /etc/gatehouse/web/nginx.conf && systemctl reload nginx && sleep 1")
    (rule, *_) = [rule for rule in derive(here.site, "gateway").input if rule.listener.port == 443]
    assert "TLSv1.1" in suites(gateway, rule)[0]
    gateway.converge()


HOME = "/tmp/stranger"
STATUS = "devices/stranger/status"


@pytest.fixture
def told(gateway: Gateway, here: Checkout) -> Iterator[str]:
    """What a device of the site has told the broker, to be kept for whoever may read it."""
    pki = vaults.open_pki(here.site)
    leaf = pki.device("stranger", days=1)
    files = {"ca.pem": pki.trust_anchor, "chain.pem": leaf.chain_pem, "key.pem": leaf.private_key_pem}
    for name, content in files.items():
        write = ["sh", "-c", f"umask 077; mkdir -p {HOME}; cat >{HOME}/{name}"]
        assert lab.run(gateway.name, "device", write, stdin=content.decode()).returncode == 0
    keys = f"--cafile {HOME}/ca.pem --cert {HOME}/chain.pem --key {HOME}/key.pem"
    publish = f"timeout 8 mosquitto_pub -V mqttv5 -h 10.10.10.1 -p 8883 {keys} -q 1 -r -t {STATUS}"
    gateway.elsewhere("device", f"{publish} -m online")
    yield STATUS
    gateway.elsewhere("device", f"{publish} -n; rm -r {HOME}")


def heard(gateway: Gateway, rule: InputRule, *login: str) -> tuple[dict[str, str], str]:
    """What nmap's mqtt-subscribe hears of a broker from the rule's segment: payloads by topic, and all that it said."""
    told = "\n".join([*login, "mqtt-subscribe.listen-time=2s"])
    command = "cat >/run/nmap-arguments; nmap -Pn -n -oX - --script +mqtt-subscribe"
    command += f" --script-args-file /run/nmap-arguments -p {rule.listener.port} {rule.addresses[0]}"
    command += "; status=$?; rm /run/nmap-arguments; exit $status"
    done = lab.run(gateway.name, HOST_OF[rule.segment], ["sh", "-c", command], stdin=told, timeout=60)
    assert done.returncode == 0, done.stderr
    report = fromstring(done.stdout)  # noqa: S314
    state = report.find(".//port/state")
    assert state is not None and state.get("state") == "open", done.stdout
    payloads = report.findall(
        ".//script[@id='mqtt-subscribe']/table[@key='Topics and their most recent payloads']/elem"
    )
    return {str(each.get("key")): each.text or "" for each in payloads}, done.stdout


def test_nmap_hears_of_the_broker_what_a_login_may_read_and_nothing_without_one(
    gateway: Gateway, here: Checkout, told: str
) -> None:
    rules = [rule for rule in derive(here.site, "gateway").input if rule.service == "mosquitto"]
    (certificates,) = [r for r in rules if (r.listener.name, r.segment) == ("mqtts", "iot")]
    (passwords,) = [r for r in rules if (r.listener.name, r.segment) == ("passwords", "internal")]
    password = password_of(vaults.open_vault(here.site), "homeassistant")
    login = (f"mqtt-subscribe.username={user_name('homeassistant')}", f"mqtt-subscribe.password={password}")
    topics, said = heard(gateway, passwords, *login)
    assert topics[told] == "online", said
    assert all(topic.startswith("devices/") for topic in topics), said
    for rule in (passwords, certificates):
        topics, said = heard(gateway, rule)
        assert topics == {} and told not in said, said


def test_debsecan_finds_of_this_gateways_packages_what_its_feed_says_and_nothing_once_it_is_fixed(
    gateway: Gateway, here: Checkout, tmp_path: Path
) -> None:
    tools.ensure(print, {"debsecan": "debsecan"})
    suite, version = gateway(
        ". /etc/os-release; echo $VERSION_CODENAME; dpkg-query -W -f '${Version}' mosquitto"
    ).split()
    (tmp_path / "all.zip").write_bytes(archive(JINJA))
    asked = ["vulnerabilities", "--python-source", str(tmp_path / "all.zip"), "--debian-source"]
    fixed = here.invoke(*asked, mirrored(tmp_path / "fixed", suite, one_entry("mosquitto", version)))
    assert fixed.status == 0 and "gateway: none known, in " in fixed.out, fixed.text
    known = here.invoke(*asked, mirrored(tmp_path / "known", suite, one_entry("mosquitto", "99:1")))
    rows = [line.split()[:5] for line in known.out.splitlines()]
    assert known.status == 1 and ["gateway", "mosquitto", version, "CVE-2099-0001", "99:1"] in rows, known.text
